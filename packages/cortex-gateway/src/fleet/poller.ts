/**
 * Asks every node how it is. Each node has its own loop with jitter, so a dead one delays nobody; a bound
 * on the calls in flight keeps a thousand nodes from one burst. Bodies are read whole before any state is
 * touched.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { discoverySchema, healthSchema, neuronModelsSchema } from 'cortex-core/wire/neuron';
import type { NodeState } from './node-state.ts';

export interface PollerOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly missesMax: number;
  readonly random: () => number;
  /** After each poll, whatever came of it. */
  readonly onPolled: (node: NodeState) => void;
}

const parallelMax = 32;
/**
 * A node that does not answer is asked again sooner, so that a fleet that starts together is soon complete.
 */
const downIntervalMs = 2000;

export class Poller {
  readonly #options: PollerOptions;
  readonly #timers = new Map<NodeState, { cancel(): void }>();
  readonly #running = new Map<NodeState, Promise<void>>();
  readonly #stop = new AbortController();
  readonly #queue: (() => void)[] = [];
  #inFlight = 0;

  constructor(options: PollerOptions) {
    this.#options = options;
  }

  /** Polls every node at once, then each in its own rhythm. Resolves when the first round is over. */
  async start(nodes: readonly NodeState[]): Promise<void> {
    await Promise.all(nodes.map((node) => this.#loop(node)));
  }

  /** One poll now; joins one that already runs. Never rejects. */
  poll(node: NodeState): Promise<void> {
    const running = this.#running.get(node);
    if (running !== undefined) return running;
    const poll = this.#bounded(() => this.#pollOnce(node)).finally(() => this.#running.delete(node));
    this.#running.set(node, poll);
    return poll;
  }

  /** Resolves when no poll of that node runs. */
  async settled(node: NodeState): Promise<void> {
    await this.#running.get(node);
  }

  close(): void {
    this.#stop.abort(new Error('closing'));
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  async #loop(node: NodeState): Promise<void> {
    await this.poll(node);
    if (this.#stop.signal.aborted) return;
    const { intervalMs, random, clock } = this.#options;
    const base = node.healthy ? intervalMs : Math.min(intervalMs, downIntervalMs);
    const timer = clock.setTimer(base * (0.9 + 0.2 * random()), () => void this.#loop(node));
    this.#timers.set(node, timer);
  }

  async #bounded(work: () => Promise<void>): Promise<void> {
    if (this.#inFlight >= parallelMax) await new Promise<void>((resolve) => this.#queue.push(resolve));
    this.#inFlight++;
    try {
      await work();
    } finally {
      this.#inFlight--;
      this.#queue.shift()?.();
    }
  }

  async #pollOnce(node: NodeState): Promise<void> {
    const { timeoutMs, log } = this.#options;
    const epoch = node.epoch;
    try {
      const [discovery, models, health] = await Promise.all([
        node.discovery === null || node.rediscover
          ? node.client.getJson('/discovery', timeoutMs, this.#stop.signal)
          : null,
        node.client.getJson('/models', timeoutMs, this.#stop.signal),
        node.client.getJson('/health', timeoutMs, this.#stop.signal),
      ]);
      const rows = neuronModelsSchema.parse(models);
      const parsedHealth = healthSchema.parse(health);
      if (discovery !== null) node.discovery = discoverySchema.parse(discovery);
      node.rediscover = node.health !== null && parsedHealth.uptime_secs < node.health.uptime_secs;
      const isFresh = node.epoch === epoch;
      if (isFresh) node.ingest(rows);
      node.ingestHealth(parsedHealth, isFresh);
      if (!node.healthy) log.info('node is healthy', { node: node.name });
      node.healthy = true;
      node.misses = 0;
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      this.#miss(node, thrown);
    }
    node.changed();
    this.#options.onPolled(node);
  }

  #miss(node: NodeState, thrown: unknown): void {
    node.misses++;
    const fields = { node: node.name, misses: node.misses, cause: String(thrown) };
    if (node.healthy && node.misses >= this.#options.missesMax) {
      node.healthy = false;
      this.#options.log.warn('node is unhealthy', fields);
    } else {
      this.#options.log.debug('poll failed', fields);
    }
  }
}
