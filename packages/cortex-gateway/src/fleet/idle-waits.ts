import type { NodeState } from './node-state.ts';

/** Lets an eviction wait until the last request of a model on a node has ended. */
export class IdleWaits {
  readonly #waits = new Map<string, Set<() => void>>();

  wait(node: NodeState, model: string, signal: AbortSignal): Promise<void> {
    if (node.leasesOf(model) === 0) return Promise.resolve();
    const key = `${node.name}\n${model}`;
    return new Promise((resolve, reject) => {
      const waits = this.#waits.get(key) ?? new Set();
      this.#waits.set(key, waits);
      const onAbort = (): void => {
        waits.delete(onIdle);
        reject(signal.reason);
      };
      const onIdle = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      waits.add(onIdle);
    });
  }

  released(node: NodeState, model: string): void {
    if (node.leasesOf(model) > 0) return;
    const key = `${node.name}\n${model}`;
    const waits = this.#waits.get(key);
    this.#waits.delete(key);
    for (const wake of waits ?? []) wake();
  }
}
