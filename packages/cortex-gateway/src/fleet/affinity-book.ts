/**
 * Which node has which prompt's head in its prefix cache: remembered per model and key, so that routing can
 * take off what need not be prefilled there. It is belief: the measured `cached_tokens` of each answer say
 * which share of a prompt with this key is found again. Limits: keys, the longest unused go first; a few
 * nodes per key.
 */
import type { CachedPrefix } from '../decide/route-request.ts';
import type { Affinity, AnswerFacts } from './ask.ts';

interface Belief extends CachedPrefix {
  /** Tokens of the last prompt and its answer. */
  readonly wholeTokens: number;
  /** Share of them that a next request will find, 0..1. */
  readonly reuse: number;
}

const keysMaxDefault = 20_000;
const nodesPerKeyMax = 4;
const newestWeight = 0.5;

export class AffinityBook {
  readonly #keysMax: number;
  readonly #byKey = new Map<string, readonly Belief[]>();

  constructor(keysMax = keysMaxDefault) {
    this.#keysMax = keysMax;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Nodes that are believed to have the prompt's head, and how much of it. */
  cachedFor(model: string, affinity: Affinity | null | undefined): readonly CachedPrefix[] {
    if (affinity === null || affinity === undefined) return nothing;
    return this.#byKey.get(keyOf(model, affinity)) ?? nothing;
  }

  note(model: string, affinity: Affinity | null | undefined, node: string, facts: AnswerFacts): void {
    if (affinity === null || affinity === undefined || facts.promptTokens <= 0) return;
    const key = keyOf(model, affinity);
    const known = this.#byKey.get(key) ?? nothing;
    const before = known.find((each) => each.node === node);
    const others = known.filter((each) => each.node !== node).slice(1 - nodesPerKeyMax);
    // what is used goes to the end: the first is the longest unused
    this.#byKey.delete(key);
    this.#byKey.set(key, [...others, believe(before, affinity, node, facts)]);
    if (this.#byKey.size <= this.#keysMax) return;
    for (const oldest of this.#byKey.keys()) {
      this.#byKey.delete(oldest);
      return;
    }
  }

  /** The node's copies of these models are gone, or new ones with an empty cache. */
  forget(node: string, models: ReadonlySet<string>): void {
    for (const [key, known] of this.#byKey) {
      if (!known.some((each) => each.node === node)) continue;
      if (!models.has(key.slice(0, key.indexOf('\n')))) continue;
      const rest = known.filter((each) => each.node !== node);
      if (rest.length === 0) this.#byKey.delete(key);
      else this.#byKey.set(key, rest);
    }
  }
}

const nothing: readonly Belief[] = [];

function keyOf(model: string, { key }: Affinity): string {
  return `${model}\n${key}`;
}

function believe(
  before: Belief | undefined,
  { headTokens }: Affinity,
  node: string,
  { promptTokens, cachedTokens, completionTokens }: AnswerFacts,
): Belief {
  const wholeTokens = promptTokens + completionTokens;
  let reuse = headTokens === null ? 1 : Math.min(1, headTokens / wholeTokens);
  if (before !== undefined) {
    const findable = Math.max(1, Math.min(before.wholeTokens, promptTokens));
    const found = cachedTokens === null ? before.reuse : Math.min(1, cachedTokens / findable);
    reuse = before.reuse + newestWeight * (found - before.reuse);
  }
  return { node, wholeTokens, reuse, tokens: Math.floor(wholeTokens * reuse) };
}
