/** What a generated trace is made of. */
import { type CatalogueEntry, defaultPriority } from '../decide/fleet-view.ts';
import type { SimNodeSpec } from './sim-fleet.ts';
import type { TraceRequest } from './trace.ts';

export interface Scenario {
  readonly nodes: readonly SimNodeSpec[];
  readonly models: readonly CatalogueEntry[];
  readonly requests: readonly TraceRequest[];
}

interface Tokens {
  readonly prompt: number;
  readonly completion: number;
  readonly key?: string;
  readonly session?: string;
  readonly priority?: number;
}

/** A mid-range GPU of a home or an office; the rates of a node of no particular kind. */
const defaultRates = {
  devicesMb: [24_000],
  loadMbPerSec: 1000,
  prefillTokensPerSec: 2000,
  decodeTokensPerSec: 40,
  slots: 4,
};

export function nodesOf(name: string, count: number, more: Partial<SimNodeSpec> = {}): SimNodeSpec[] {
  return Array.from({ length: count }, (_, i) => ({
    ...defaultRates,
    ...more,
    name: count === 1 ? name : `${name}-${String(i + 1).padStart(String(count).length, '0')}`,
  }));
}

export function entryOf(id: string, vramMb: number, more: Partial<CatalogueEntry> = {}): CatalogueEntry {
  return {
    id,
    wireId: id,
    harness: 'llamacpp',
    quant: null,
    vramMb,
    minDevices: 1,
    minDeviceVramMb: null,
    pinnedOn: [],
    residencyPriority: defaultPriority,
    limit: null,
    cost: null,
    capabilities: [],
    ...more,
  };
}

/** Collects requests; its numbers come from one seed (mulberry32). */
export class TraceWriter {
  readonly #requests: TraceRequest[] = [];
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** In [0, 1). */
  random(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.random());
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)] as T;
  }

  /** Arrives `secs` after the start. Returns its id. */
  at(secs: number, model: string, tokens: Tokens): string {
    return this.#add([], secs, model, tokens);
  }

  /** Arrives `secs` after all of those were answered. */
  after(ids: readonly string[], secs: number, model: string, tokens: Tokens): string {
    return this.#add(ids, secs, model, tokens);
  }

  done(): readonly TraceRequest[] {
    return this.#requests;
  }

  #add(after: readonly string[], secs: number, model: string, tokens: Tokens): string {
    const id = `r${this.#requests.length + 1}`;
    const {
      prompt: promptTokens,
      completion: completionTokens,
      key = '',
      session = '',
      priority = 0,
    } = tokens;
    const atMs = Math.round(secs * 1000);
    this.#requests.push({
      id,
      model,
      atMs,
      after,
      key,
      session,
      priority,
      promptTokens,
      completionTokens,
    });
    return id;
  }
}
