/**
 * What experience says of a model on a node, against what is told of it.
 *
 * Problem: a neuron says "loaded", and answers a request with 404 or "not ready"; or it refuses a load for
 *          which others were evicted, and with the next request they would be evicted again.
 * Design:  after the first it is not believed to serve there, after the second it evicts nobody there, for a
 *          while that doubles with each time; one good answer, one load that works, ends that.
 * Limits:  2 s to 60 s, and 10 s to 10 min.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { NodeState } from './node-state.ts';

type Kind = 'serves' | 'loads';

interface Doubt {
  strikes: number;
  timer: { cancel(): void } | null;
}

const limits = { serves: { firstMs: 2000, msMax: 60_000 }, loads: { firstMs: 10_000, msMax: 600_000 } };

export class Doubts {
  readonly #clock: Clock;
  readonly #onOver: () => void;
  readonly #doubts = {
    serves: new Map<NodeState, Map<string, Doubt>>(),
    loads: new Map<NodeState, Map<string, Doubt>>(),
  };

  /** `onOver`: a model may be tried again. */
  constructor(clock: Clock, onOver: () => void) {
    this.#clock = clock;
    this.#onOver = onOver;
  }

  /** `why`: what it answered instead. */
  raise(kind: Kind, node: NodeState, model: string, why: string): void {
    const ofNode = this.#doubts[kind].get(node) ?? new Map<string, Doubt>();
    this.#doubts[kind].set(node, ofNode);
    const doubt = ofNode.get(model) ?? { strikes: 0, timer: null };
    ofNode.set(model, doubt);
    doubt.timer?.cancel();
    const { firstMs, msMax } = limits[kind];
    const ms = Math.min(msMax, firstMs * 2 ** doubt.strikes++);
    node.setDoubt(kind, model, why);
    doubt.timer = this.#clock.setTimer(ms, () => {
      doubt.timer = null;
      node.setDoubt(kind, model, null);
      this.#onOver();
    });
  }

  /** It served, or loaded; or another neuron is there. */
  drop(kind: Kind, node: NodeState, model: string): void {
    const doubt = this.#doubts[kind].get(node)?.get(model);
    if (doubt === undefined) return;
    doubt.timer?.cancel();
    this.#doubts[kind].get(node)?.delete(model);
    node.setDoubt(kind, model, null);
  }

  dropAll(node: NodeState): void {
    for (const kind of ['serves', 'loads'] as const) {
      for (const model of [...(this.#doubts[kind].get(node)?.keys() ?? [])]) this.drop(kind, node, model);
      this.#doubts[kind].delete(node);
    }
  }

  close(): void {
    const nodes = [...this.#doubts.serves.keys(), ...this.#doubts.loads.keys()];
    for (const node of nodes) this.dropAll(node);
  }
}
