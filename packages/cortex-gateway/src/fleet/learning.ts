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

export class Learning {
  readonly #rates: RateBook;
  readonly #affinity: AffinityBook;

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
      this.#rates.note(node, model, 'prefillTokS', (prefilled * 1000) / prefillMs);
    }
    if (facts.decodeMs !== null && facts.decodeMs > 0 && facts.completionTokens >= decodedMin) {
      this.#rates.note(node, model, 'decodeTokS', (facts.completionTokens * 1000) / facts.decodeMs);
    }
    const own = facts.prefillMs === null || facts.decodeMs === null ? null : facts.prefillMs + facts.decodeMs;
    const serviceMs = own ?? (waited ? null : facts.totalMs);
    if (serviceMs !== null) this.#rates.note(node, model, 'serviceMs', serviceMs);
  }

  /** A neuron tells its own averages: they stand in for what this gateway has not measured. */
  polled(node: NodeState): void {
    for (const load of node.health?.models ?? []) {
      if (load.tok_s_prefill <= 0 && load.tok_s_decode <= 0) continue;
      const model = node.canonicalId(load.id);
      const known = this.#rates.of(node.name, model);
      if ((known?.prefillTokS ?? null) === null) {
        this.#rates.note(node.name, model, 'prefillTokS', load.tok_s_prefill);
      }
      if ((known?.decodeTokS ?? null) === null) {
        this.#rates.note(node.name, model, 'decodeTokS', load.tok_s_decode);
      }
    }
  }

  /** A load was measured, and the copy that it made has an empty cache. */
  happened(event: FleetEvent, node: NodeState, view: FleetView): void {
    if (event.kind === 'evicted') this.#affinity.forget(event.node, event.model);
    if (event.kind !== 'loaded') return;
    this.#affinity.forget(event.node, event.model);
    const held = node.toView().models.get(event.model);
    this.#rates.noteLoad(event.node, event.model, event.ms, held === undefined ? 0 : sizeOf(view, held));
    node.changed();
  }
}
