/**
 * Asks every node how it is. Each node has its own loop with jitter and its own time limit, so a dead one
 * delays nobody; a bound on the calls that begin at once keeps a thousand nodes from one burst. A poll that
 * takes long gives its place in that bound back: a crowd of hung nodes must not hold the others up. Bodies
 * are read whole before any state is touched. No decision compares clocks of two machines: a neuron's uptime
 * is only compared with its own.
 */
import { setMaxListeners } from 'node:events';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import {
  type Discovery,
  discoverySchema,
  healthSchema,
  type NeuronHealth,
  neuronModelsSchema,
} from 'cortex-core/wire/neuron';
import type { NodeState } from './node-state.ts';
import { wireWarning } from './wire-warning.ts';

/** Read anew at each use: a reload may change it. */
export interface PollSettings {
  readonly pollIntervalMs: number;
  readonly pollTimeoutMs: number;
  readonly missesMax: number;
}

export interface PollerOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly settings: () => PollSettings;
  readonly random: () => number;
  /** What was known of the node is of another neuron. */
  readonly onAnother: (node: NodeState) => void;
  /** After each poll, whatever came of it. */
  readonly onPolled: (node: NodeState) => void;
}

const parallelMax = 32;
/** What a poll of a node that is well takes at most; longer ones leave their place to the next. */
const placeMsMax = 250;
/**
 * A node that does not answer is asked again sooner, so that a fleet that starts together is soon complete;
 * and so is one that loads, which may be for another gateway while requests of ours wait for it.
 */
const unsettledIntervalMs = 2000;
/** Devices are read again now and then, also when nothing says that they changed. */
const pollsPerDiscovery = 30;

export class Poller {
  readonly #options: PollerOptions;
  readonly #timers = new Map<NodeState, { cancel(): void }>();
  readonly #running = new Map<NodeState, Promise<void>>();
  readonly #polls = new WeakMap<NodeState, number>();
  readonly #nodes = new Set<NodeState>();
  readonly #stop = new AbortController();
  readonly #queue: (() => void)[] = [];
  #places = parallelMax;

  constructor(options: PollerOptions) {
    this.#options = options;
    setMaxListeners(0, this.#stop.signal);
  }

  /** Polls them at once, then each in its own rhythm. Resolves when that first round is over. */
  async add(nodes: readonly NodeState[]): Promise<void> {
    for (const node of nodes) this.#nodes.add(node);
    await Promise.all(nodes.map((node) => this.#loop(node)));
  }

  remove(node: NodeState): void {
    this.#nodes.delete(node);
    this.#polls.delete(node);
    this.#timers.get(node)?.cancel();
    this.#timers.delete(node);
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
    for (const node of [...this.#nodes]) this.remove(node);
  }

  async #loop(node: NodeState): Promise<void> {
    await this.poll(node);
    if (this.#stop.signal.aborted || !this.#nodes.has(node)) return;
    const { settings, random, clock } = this.#options;
    const { pollIntervalMs } = settings();
    const isSettled = node.healthy && (node.health?.loading.length ?? 0) === 0;
    const base = isSettled ? pollIntervalMs : Math.min(pollIntervalMs, unsettledIntervalMs);
    const timer = clock.setTimer(base * (0.9 + 0.2 * random()), () => void this.#loop(node));
    this.#timers.set(node, timer);
  }

  async #bounded(work: () => Promise<void>): Promise<void> {
    if (this.#places > 0) this.#places--;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
    let holds = true;
    const giveBack = (): void => {
      if (!holds) return;
      holds = false;
      const next = this.#queue.shift();
      if (next === undefined) this.#places++;
      else next();
    };
    const timer = this.#options.clock.setTimer(placeMsMax, giveBack);
    try {
      await work();
    } finally {
      timer.cancel();
      giveBack();
    }
  }

  /** `isAgain`: the poll before met another neuron than the one that was known. */
  async #pollOnce(node: NodeState, isAgain = false): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { log } = this.#options;
    const { epoch } = node;
    try {
      const [discovery, models, health] = await Promise.all([
        node.discovery === null ? this.#get(node, '/discovery') : null,
        this.#get(node, '/models'),
        this.#get(node, '/health'),
      ]);
      const rows = neuronModelsSchema.parse(models);
      const parsed = healthSchema.parse(health);
      const { instance } = parsed;
      const told = discovery ?? (this.#isOutdated(node, parsed) ? await this.#get(node, '/discovery') : null);
      const found = told === null ? null : discoverySchema.parse(told);
      const isAnother =
        (found !== null && found.instance !== instance) || (discovery === null && node.isAnother(instance));
      // A request's answer told of another one since this poll began.
      const isLate = node.isStranger && node.epoch !== epoch;
      if (isAnother) {
        node.estrange();
        this.#options.onAnother(node);
        if (isAgain) throw new Error('neurons take turns at this address');
        log.warn('another neuron answers at this address, or it was restarted', { node: node.name });
      }
      // The answers may be of two neurons: all is read again, from one.
      if (!isAgain && (isAnother || isLate)) return await this.#pollOnce(node, true);
      if (found !== null) this.#discover(node, found);
      if (!isLate) node.meet(instance);
      const isFresh = node.epoch === epoch;
      if (isFresh) node.ingest(rows);
      node.ingestHealth(parsed, isFresh);
      node.polledEpoch = epoch;
      if (!node.healthy) log.info('node is healthy', { node: node.name });
      node.healthy = true;
      node.misses = 0;
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      this.#miss(node, thrown);
    }
    node.changed();
    if (this.#nodes.has(node)) this.#options.onPolled(node);
  }

  #get(node: NodeState, path: string): Promise<unknown> {
    return node.client.getJson(path, this.#options.settings().pollTimeoutMs, this.#stop.signal);
  }

  /** It restarted, was away, or tells of other devices: it may be another machine by now. */
  #isOutdated(node: NodeState, health: NeuronHealth): boolean {
    const polls = (this.#polls.get(node) ?? 0) + 1;
    this.#polls.set(node, polls);
    if (node.misses > 0 || node.health === null || polls % pollsPerDiscovery === 0) return true;
    if (health.uptime_secs < node.health.uptime_secs) return true;
    const known = node.discovery?.devices.map((device) => device.index).join() ?? '';
    return health.devices.map((device) => device.index).join() !== known;
  }

  #discover(node: NodeState, found: Discovery): void {
    const before = node.discovery;
    node.discovery = found;
    const { log } = this.#options;
    const warning = wireWarning(node.discovery);
    if (warning !== null && before?.wire_version !== found.wire_version)
      log.warn(warning, { node: node.name });
    if (before !== null && JSON.stringify(before.devices) !== JSON.stringify(found.devices)) {
      log.warn('node came back with other devices', { node: node.name, devices: found.devices.length });
    }
  }

  #miss(node: NodeState, thrown: unknown): void {
    node.misses++;
    const fields = { node: node.name, misses: node.misses, cause: String(thrown) };
    if (node.healthy && node.misses >= this.#options.settings().missesMax) {
      node.healthy = false;
      this.#options.log.warn('node is unhealthy', fields);
    } else {
      this.#options.log.debug('poll failed', fields);
    }
  }
}
