/**
 * What a neuron says of a model and does not keep: "loaded", and then 404 or "not ready" to a request for it.
 * The model is not believed to serve there for a while that doubles with each such answer; one good answer
 * ends that. Limits: 2 s to 60 s.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { NodeState } from './node-state.ts';

interface Doubt {
  strikes: number;
  timer: { cancel(): void } | null;
}

const firstMs = 2000;
const msMax = 60_000;

export class Doubts {
  readonly #clock: Clock;
  readonly #onOver: () => void;
  readonly #doubts = new Map<NodeState, Map<string, Doubt>>();

  /** `onOver`: a model may be tried again. */
  constructor(clock: Clock, onOver: () => void) {
    this.#clock = clock;
    this.#onOver = onOver;
  }

  /** `code`: what it answered instead. */
  raise(node: NodeState, model: string, code: string): void {
    const ofNode = this.#doubts.get(node) ?? new Map<string, Doubt>();
    this.#doubts.set(node, ofNode);
    const doubt = ofNode.get(model) ?? { strikes: 0, timer: null };
    ofNode.set(model, doubt);
    doubt.timer?.cancel();
    const ms = Math.min(msMax, firstMs * 2 ** doubt.strikes++);
    node.setDoubt(model, `says that it has loaded "${model}", and answers ${code}`);
    doubt.timer = this.#clock.setTimer(ms, () => {
      doubt.timer = null;
      node.setDoubt(model, null);
      this.#onOver();
    });
  }

  /** It served, or another neuron is there. */
  drop(node: NodeState, model: string): void {
    const doubt = this.#doubts.get(node)?.get(model);
    if (doubt === undefined) return;
    doubt.timer?.cancel();
    this.#doubts.get(node)?.delete(model);
    node.setDoubt(model, null);
  }

  dropAll(node: NodeState): void {
    for (const model of [...(this.#doubts.get(node)?.keys() ?? [])]) this.drop(node, model);
    this.#doubts.delete(node);
  }

  close(): void {
    for (const node of [...this.#doubts.keys()]) this.dropAll(node);
  }
}
