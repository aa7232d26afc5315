/**
 * Unloads what nobody used for its time to live. One timer per node, set to the first model that may expire;
 * whether it did is asked again in the tick in which the unload begins, so a request that comes before keeps
 * the model, and one that comes later waits until it is gone and loads it again. The neuron is asked for the
 * use of others before, and refuses when there was some since (`unused_since`).
 */
import type { ModelsConfig } from 'cortex-core/config/models-config';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { LoadJobs } from './load-jobs.ts';
import type { NodeState } from './node-state.ts';
import { keyOf } from './rejections.ts';

export interface IdleUnloadsOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly jobs: LoadJobs;
  /** ms; null = it stays. */
  readonly ttlMs: (model: string) => number | null;
}

/** The model's own time, else the default; a pinned model has only its own. */
export function toTtl(config: ModelsConfig, defaultSecs: number): (model: string) => number | null {
  const own = new Map(
    config.models.map(({ id, ttl_secs, pinned_on }) => [
      id,
      ttl_secs ?? (pinned_on.length > 0 ? 0 : defaultSecs),
    ]),
  );
  return (model) => {
    const secs = own.get(model) ?? defaultSecs;
    return secs === 0 ? null : secs * 1000;
  };
}

export class IdleUnloads {
  readonly #options: IdleUnloadsOptions;
  readonly #timers = new Map<string, { cancel(): void }>();
  /** When a model was last seen in use, or first seen at all. */
  readonly #seenMs = new Map<string, number>();
  readonly #unloading = new Set<string>();
  /** Nodes that left: an unload that ends later must not begin to watch them again. */
  readonly #left = new WeakSet<NodeState>();
  #isClosed = false;

  constructor(options: IdleUnloadsOptions) {
    this.#options = options;
  }

  /** To call when the states of a node were read, or a model on it fell idle. */
  look(node: NodeState): void {
    if (this.#isClosed || this.#left.has(node)) return;
    const { clock, ttlMs } = this.#options;
    const nowMs = clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const model of node.toView().models.values()) {
      const ttl = ttlMs(model.id);
      const key = keyOf(node.name, model.id);
      if (ttl === null || model.status !== 'loaded') {
        this.#seenMs.delete(key);
        continue;
      }
      if (model.leases + model.foreignLoad > 0) this.#seenMs.set(key, nowMs);
      const seenMs = this.#seenMs.get(key) ?? nowMs;
      this.#seenMs.set(key, seenMs);
      const expiresMs = Math.max(seenMs, model.lastUsedMs ?? 0) + ttl;
      if (expiresMs > nowMs) nextMs = Math.min(nextMs, expiresMs);
      else if (model.leases + model.foreignLoad === 0 && !this.#unloading.has(key)) {
        this.#unload(node, model.id, ttl);
      }
    }
    this.#timers.get(node.name)?.cancel();
    this.#timers.delete(node.name);
    if (!Number.isFinite(nextMs)) return;
    this.#timers.set(
      node.name,
      clock.setTimer(nextMs - nowMs, () => this.look(node)),
    );
  }

  /** The node left the fleet. */
  forget(node: NodeState): void {
    this.#left.add(node);
    this.#timers.get(node.name)?.cancel();
    this.#timers.delete(node.name);
    const here = keyOf(node.name, '');
    for (const key of this.#seenMs.keys()) if (key.startsWith(here)) this.#seenMs.delete(key);
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  #unload(node: NodeState, model: string, ttl: number): void {
    const { clock, log, jobs } = this.#options;
    const key = keyOf(node.name, model);
    this.#unloading.add(key);
    const isUnused = (): boolean => {
      const held = node.toView().models.get(model);
      if (held === undefined || held.leases + held.foreignLoad > 0 || this.#isClosed) return false;
      const usedMs = Math.max(this.#seenMs.get(key) ?? 0, held.lastUsedMs ?? 0);
      return clock.monotonicMs() - usedMs >= ttl;
    };
    jobs
      .unloadIdle(node, model, isUnused)
      .catch((cause) => {
        // not again at once
        this.#seenMs.set(key, clock.monotonicMs());
        log.warn('could not unload', { node: node.name, model, cause: String(cause) });
      })
      .finally(() => {
        this.#unloading.delete(key);
        this.look(node);
      });
  }
}
