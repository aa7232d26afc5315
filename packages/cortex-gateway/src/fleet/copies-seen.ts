/**
 * Which copy of each model a node had at its last poll. A copy that is gone took its prefix cache along,
 * whoever ended it: a restart of the neuron, an unload by hand, another gateway. Where a neuron tells no load
 * of a model (`use` in its health), only its absence and another life of the neuron show that.
 */
import type { NodeState } from './node-state.ts';

interface Copy {
  readonly instance: string | null;
  readonly loadId: string | null;
}

export class CopiesSeen {
  readonly #byNode = new Map<string, ReadonlyMap<string, Copy>>();
  readonly #onGone: (node: string, models: ReadonlySet<string>) => void;

  constructor(onGone: (node: string, models: ReadonlySet<string>) => void) {
    this.#onGone = onGone;
  }

  /** After each poll, whatever came of it. */
  polled(node: NodeState): void {
    if (node.misses > 0) return;
    const before = this.#byNode.get(node.name) ?? new Map<string, Copy>();
    const now = copiesOn(node);
    const gone = [...before].filter(([model, copy]) => !isSame(copy, now.get(model)));
    this.#byNode.set(node.name, now);
    if (gone.length > 0) this.#onGone(node.name, new Set(gone.map(([model]) => model)));
  }

  /** The node left the fleet. */
  forget(node: string): void {
    const models = this.#byNode.get(node);
    this.#byNode.delete(node);
    if (models !== undefined) this.#onGone(node, new Set(models.keys()));
  }
}

function copiesOn(node: NodeState): ReadonlyMap<string, Copy> {
  const instance = node.health?.instance ?? null;
  const loaded = [...node.toView().models.values()].filter(({ status }) => status === 'loaded');
  return new Map(loaded.map(({ id }) => [id, { instance, loadId: node.readUse(id)?.mark.load_id ?? null }]));
}

function isSame(before: Copy, now: Copy | undefined): boolean {
  if (now === undefined || before.instance !== now.instance) return false;
  return before.loadId === now.loadId || before.loadId === null || now.loadId === null;
}
