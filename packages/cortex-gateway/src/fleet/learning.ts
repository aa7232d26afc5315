/** Turns what passes into rates: answers, polls and loads. */
import { sizeOf } from '../decide/eviction.ts';
import type { FleetView } from '../decide/fleet-view.ts';
import type { RateBook } from '../decide/rate-book.ts';
import type { AffinityBook } from './affinity-book.ts';
import type { AnswerFacts } from './ask.ts';
import type { Lease } from './lease.ts';
import type { FleetEvent } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';

/** Fewer tokens measure the overhead of a step, not a rate. */
const prefilledMin = 32;
const decodedMin = 8;

const shownMax = 40_000;

type TokenRate = 'prefillTokS' | 'decodeTokS';

export class Learning {
  readonly #rates: RateBook;
  readonly #affinity: AffinityBook;
  /** Rates that answers have shown, by name, node and model. */
  readonly #shown = new Set<string>();

  constructor(rates: RateBook, affinity: AffinityBook) {
    this.#rates = rates;
    this.#affinity = affinity;
  }

  /** The neuron's timings where it gave them, else what the gateway saw of an answer that did not wait. */
  answered(lease: Lease, facts: AnswerFacts): void {
    const { node, model, terms } = lease;
    this.#affinity.note(model, lease.ask.affinity, node, facts);
    const waited = terms.queueMs > 0;
    const prefillMs = facts.prefillMs ?? (waited ? null : facts.firstTokenMs);
    // what was cached is not known: neither is what was read
    const prefilled = facts.cachedTokens === null ? 0 : facts.promptTokens - facts.cachedTokens;
    if (prefillMs !== null && prefillMs > 0 && prefilled >= prefilledMin) {
      this.#note(node, model, 'prefillTokS', (prefilled * 1000) / prefillMs);
    }
    if (facts.decodeMs !== null && facts.decodeMs > 0 && facts.completionTokens >= decodedMin) {
      this.#note(node, model, 'decodeTokS', (facts.completionTokens * 1000) / facts.decodeMs);
    }
    const own = facts.prefillMs === null || facts.decodeMs === null ? null : facts.prefillMs + facts.decodeMs;
    const serviceMs = own ?? (waited ? null : facts.totalMs);
    if (serviceMs !== null) this.#rates.note(node, model, 'serviceMs', serviceMs);
  }

  /** A neuron tells its own averages: they stand in for what answers have not shown to this gateway. */
  polled(node: NodeState): void {
    for (const load of node.health?.models ?? []) {
      const model = node.canonicalId(load.id);
      this.#follow(node.name, model, 'prefillTokS', load.tok_s_prefill);
      this.#follow(node.name, model, 'decodeTokS', load.tok_s_decode);
    }
  }

  #follow(node: string, model: string, name: TokenRate, value: number): void {
    if (value <= 0 || this.#shown.has(`${name} ${node}\n${model}`)) return;
    const known = this.#rates.of(node, model)?.[name] ?? null;
    // an average that stands still is nothing new
    if (known === null || Math.abs(known - value) > 0.01 * value) this.#rates.note(node, model, name, value);
  }

  #note(node: string, model: string, name: TokenRate, value: number): void {
    if (this.#shown.size >= shownMax) this.#shown.clear();
    this.#shown.add(`${name} ${node}\n${model}`);
    this.#rates.note(node, model, name, value);
  }

  /** A load was measured, and the copy that it made has an empty cache. */
  happened(event: FleetEvent, node: NodeState, view: FleetView): void {
    const isEnd = event.kind === 'evicted' || event.kind === 'loaded';
    if (isEnd) this.#affinity.forget(event.node, new Set([event.model]));
    if (event.kind !== 'loaded') return;
    const held = node.toView().models.get(event.model);
    this.#rates.noteLoad(event.node, event.model, event.ms, held === undefined ? 0 : sizeOf(view, held));
    node.changed();
  }
}
