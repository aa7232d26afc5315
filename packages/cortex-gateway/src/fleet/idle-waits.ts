import type { NodeState } from './node-state.ts';

/** Lets an eviction wait until the last request of a model on a node has ended. */
export class IdleWaits {
  /** By the node itself: two may have one name for a while, when its address has changed. */
  readonly #waits = new Map<NodeState, Map<string, Set<() => void>>>();

  wait(node: NodeState, model: string, signal: AbortSignal): Promise<void> {
    if (node.leasesOf(model) === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const models = this.#waits.get(node) ?? new Map<string, Set<() => void>>();
      this.#waits.set(node, models);
      const waits = models.get(model) ?? new Set();
      models.set(model, waits);
      const onAbort = (): void => {
        waits.delete(onIdle);
        reject(signal.reason);
      };
      const onIdle = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      waits.add(onIdle);
    });
  }

  released(node: NodeState, model: string): void {
    if (node.leasesOf(model) > 0) return;
    const models = this.#waits.get(node);
    const waits = models?.get(model);
    models?.delete(model);
    if (models?.size === 0) this.#waits.delete(node);
    for (const wake of waits ?? []) wake();
  }
}
