/**
 * What the fleet knows of one node. Only the fleet writes it; everyone else sees `toView()`, cached. Leases
 * are counted in the cached view itself, so that a request makes nothing anew.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Activation, Discovery, LoadProgress, NeuronHealth, NeuronModel } from 'cortex-core/wire/neuron';
import type { ComingView, ModelView, NodeView } from '../decide/fleet-view.ts';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import type { Catalogue } from './catalogue.ts';
import { LaggingMemory, type MemoryShare } from './lagging-memory.ts';
import { LoadRate } from './load-rate.ts';
import {
  keepSize,
  type ModelState,
  newRow,
  toModelView,
  toUseReading,
  type UseReading,
} from './model-state.ts';
import { NodeService, type NodeServiceOptions } from './node-service.ts';
import type { NodeSpec } from './node-set.ts';

/** Whoever keeps a picture of all nodes. */
export interface NodeWatcher {
  /** The node's view is another one now. */
  readonly onChanged: (node: NodeState) => void;
}

type LiveModelView = { -readonly [K in keyof ModelView]: ModelView[K] };
type LiveNodeView = { -readonly [K in keyof NodeView]: NodeView[K] };

/** Requests that a model gets at once before the first reading after its load. */
const slotsGuess = 8;
/** Polls that a node of the configuration may miss before it counts as away. */
const awaitedPolls = 3;

export class NodeState {
  readonly name: string;
  readonly client: NeuronClient;
  /** Whether it takes work. */
  readonly service: NodeService;
  readonly endpoint: string;
  readonly #clock: Clock;
  #catalogue: Catalogue;
  readonly #models = new Map<string, ModelState>();
  readonly #leases = new Map<string, number>();
  readonly #lastUsedMs = new Map<string, number>();
  readonly #draining = new Set<string>();
  /** Since when a model is being loaded, as far as it was seen. */
  readonly #loadingSinceMs = new Map<string, number>();
  /** Why a model that is said to be loaded is not believed to be. */
  readonly #doubts = { serves: new Map<string, string>(), loads: new Map<string, string>() };
  #instance: string | null = null;
  readonly #memory = new LaggingMemory((model) => this.#shareOf(model));
  #pending: readonly string[] = [];
  #waitingFor: (model: string) => number = () => 0;
  #turnMs: number | null = null;
  #healthMs = 0;
  #view: NodeView | null = null;
  #watcher: NodeWatcher | null = null;
  /** Another neuron answers here: nothing is sent until it has told what it has. */
  isStranger = false;
  discovery: Discovery | null = null;
  health: NeuronHealth | null = null;
  healthy = false;
  misses = 0;
  /** Grows when the fleet itself changed what is loaded: a poll begun before that is stale. */
  epoch = 0;
  /** The epoch that the last poll has seen. */
  polledEpoch = 0;
  loadCycles = 0;
  readonly loadRate = new LoadRate();
  /** No moves are planned here until then: one failed. */
  movesBarredUntilMs: number | null = null;

  constructor(
    { name, endpoint }: NodeSpec,
    client: NeuronClient,
    catalogue: Catalogue,
    service: NodeServiceOptions,
  ) {
    this.name = name;
    this.endpoint = endpoint;
    this.#clock = service.clock;
    this.service = new NodeService(name, {
      ...service,
      onChange: () => {
        this.changed();
        service.onChange();
      },
    });
    this.client = client;
    this.#catalogue = catalogue;
  }

  /** The fleet changed what is loaded since the last poll: memory readings are of before. */
  get isStale(): boolean {
    return this.epoch !== this.polledEpoch;
  }

  /** From now on the watcher hears of every change. */
  watch(watcher: NodeWatcher): void {
    this.#watcher = watcher;
  }

  /** Whether `instance` is another neuron, or another life of it, than the one that was polled. */
  isAnother(instance: string | null): boolean {
    return instance !== null && this.#instance !== null && instance !== this.#instance;
  }

  /** What was known is of another one: requests wait until a poll has read it anew. */
  estrange(): void {
    this.isStranger = true;
    this.discovery = null;
    this.epoch++;
    this.changed();
  }

  /** A poll has read everything from this one. */
  meet(instance: string | null): void {
    if (this.isAnother(instance)) this.service.renew();
    this.#instance = instance;
    this.isStranger = false;
    this.changed();
  }

  /** `serves`: why it is not believed to be loaded; `loads`: why it may not evict others. */
  setDoubt(kind: 'serves' | 'loads', model: string, why: string | null): void {
    if (why === null) this.#doubts[kind].delete(model);
    else this.#doubts[kind].set(model, why);
    this.changed();
  }

  isDoubted(model: string): boolean {
    return this.#doubts.serves.has(model);
  }

  get activation(): Activation | null {
    return this.health?.activation ?? null;
  }

  canonicalId(wireId: string): string {
    return this.#catalogue.canonicalId(wireId);
  }

  progressOf(model: string): LoadProgress | null {
    return this.health?.loading.find((each) => this.#catalogue.canonicalId(each.model_id) === model) ?? null;
  }

  /** Reads what is known again with other entries. */
  setCatalogue(catalogue: Catalogue): void {
    this.#catalogue = catalogue;
    const rows = [...this.#models.values()].map(({ row }) => row);
    this.#models.clear();
    this.ingest(rows);
    if (this.health !== null) this.#spread(this.health);
  }

  /** Names weights and template; null when the neuron does not say. */
  identityOf(model: string): string | null {
    const row = this.#models.get(model)?.row;
    if (!row?.weights_digest || !row.template_digest) return null;
    return `${row.weights_digest} ${row.template_digest}`;
  }

  ingest(rows: readonly NeuronModel[]): void {
    const seen = new Set<string>();
    for (const row of rows) {
      const id = this.#catalogue.canonicalId(row.id);
      seen.add(id);
      const state = this.#models.get(id);
      const { foreignLoad, slots, use } = state ?? noLoad;
      const known = keepSize(row, state?.row);
      this.#models.set(id, { wireId: row.id, row: known, foreignLoad, slots, use });
      this.#noteLoading(id, row.status);
    }
    for (const id of this.#models.keys()) {
      if (seen.has(id)) continue;
      this.#models.delete(id);
      this.#loadingSinceMs.delete(id);
    }
    this.changed();
  }

  /** `isFresh`: asked after the fleet's last own change. */
  ingestHealth(health: NeuronHealth, isFresh = false): void {
    this.health = health;
    this.#healthMs = this.#clock.monotonicMs();
    if (isFresh) this.#memory.read();
    this.#spread(health);
  }

  #spread(health: NeuronHealth): void {
    for (const state of this.#models.values()) Object.assign(state, { foreignLoad: 0, use: null });
    for (const load of health.models) {
      const id = this.#catalogue.canonicalId(load.id);
      const state = this.#models.get(id);
      if (state === undefined) continue;
      state.foreignLoad = Math.max(0, load.in_flight + load.queue_depth - (this.#leases.get(id) ?? 0));
      state.slots = load.max_in_flight > 0 ? load.max_in_flight : null;
      state.use = load.use ?? null;
      const usedMs = this.readUse(id)?.usedMs ?? null;
      if (usedMs !== null) this.#lastUsedMs.set(id, Math.max(usedMs, this.#lastUsedMs.get(id) ?? usedMs));
    }
    this.changed();
  }

  /** The use of a loaded model by all gateways, in ms of this clock, as last read; null = not told. */
  readUse(model: string): UseReading | null {
    return toUseReading(this.#models.get(model)?.use, this.#healthMs);
  }

  setStatus(
    model: string,
    wireId: string,
    status: NeuronModel['status'],
    devices: readonly number[] = [],
  ): void {
    const row = this.#models.get(model)?.row;
    const next: NeuronModel =
      row === undefined
        ? newRow(wireId, status, devices)
        : { ...row, status, devices: status === 'loaded' && devices.length > 0 ? [...devices] : row.devices };
    this.#models.set(model, {
      wireId,
      row: next,
      foreignLoad: 0,
      slots: this.#models.get(model)?.slots ?? null,
      use: null,
    });
    this.#noteLoading(model, status);
    this.#memory.setLoaded(model, status === 'loaded');
    this.epoch++;
    this.changed();
  }

  lease(model: string, nowMs: number): void {
    this.#leases.set(model, (this.#leases.get(model) ?? 0) + 1);
    this.#lastUsedMs.set(model, nowMs);
    this.#touch(model);
  }

  release(model: string, nowMs: number): void {
    const left = (this.#leases.get(model) ?? 1) - 1;
    if (left > 0) this.#leases.set(model, left);
    else this.#leases.delete(model);
    this.#lastUsedMs.set(model, nowMs);
    this.#touch(model);
  }

  /** Free MiB of all devices as read, less what was loaded since; null = no reading. */
  readFreeMb(): number | null {
    return this.#memory.totalFreeMb(this.health?.devices ?? []);
  }

  returning(model: string, on: boolean): void {
    this.#memory.returning(model, on);
    this.changed();
  }

  /** Whether the model takes another request, running or in the neuron's own queue. */
  hasSlot(model: string): boolean {
    const load = this.health?.models.find((each) => this.#catalogue.canonicalId(each.id) === model);
    const taken = this.leasesOf(model) + (this.#models.get(model)?.foreignLoad ?? 0);
    if (load === undefined) return taken < slotsGuess || !this.#memory.isUnread(model);
    // 0: the neuron does not say
    return load.max_in_flight === 0 || taken < load.max_in_flight + load.max_queue_depth;
  }

  leasesOf(model: string): number {
    return this.#leases.get(model) ?? 0;
  }

  get leaseCount(): number {
    return [...this.#leases.values()].reduce((total, count) => total + count, 0);
  }

  drain(model: string, on: boolean): void {
    if (on) this.#draining.add(model);
    else this.#draining.delete(model);
    this.changed();
  }

  isDraining(model: string): boolean {
    return this.#draining.has(model);
  }

  /** Models of load jobs, the running one first, and how many requests wait for each, as of the asking. */
  setPending(models: readonly string[], waitingFor: (model: string) => number = () => 0): void {
    this.#pending = models;
    this.#waitingFor = waitingFor;
    this.changed();
  }

  /** When the next of its loads has its turn at the latest, ms; null = one has it, or none waits. */
  setTurn(turnMs: number | null): void {
    this.#turnMs = turnMs;
    // counted in the view that is there, as leases are
    if (this.#view !== null) (this.#view as LiveNodeView).turnMs = turnMs;
  }

  changed(): void {
    this.#view = null;
    this.#watcher?.onChanged(this);
  }

  toView(): NodeView {
    this.#view ??= this.#build();
    return this.#view;
  }

  #build(): NodeView {
    const readings = new Map(this.health?.devices.map((device) => [device.index, device]) ?? []);
    const models = new Map<string, ModelView>();
    for (const [id, state] of this.#models) models.set(id, this.#modelView(id, state));
    const freeMb = this.#memory.lens();
    return {
      name: this.name,
      healthy: this.healthy && this.service.refusal === null,
      refusal: this.healthy ? this.service.refusal : null,
      cordoned: this.service.mode !== 'open',
      discovered: this.discovery !== null,
      isAwaited: this.discovery === null && !this.isStranger && this.misses < awaitedPolls,
      harnesses: this.discovery?.harnesses ?? [],
      devices: (this.discovery?.devices.filter((device) => device.usable !== false) ?? []).map((device) => ({
        index: device.index,
        totalMb: device.vram_total_mb,
        kind: device.kind,
        loadCycles: readings.get(device.index)?.load_cycles ?? 0,
        freeMb: freeMb(device, readings.get(device.index)?.vram_free_mb ?? null),
      })),
      models,
      pending: this.#pending,
      turnMs: this.#turnMs,
      coming: this.#coming(),
      failedLoads: new Map(this.#doubts.loads),
      isStranger: this.isStranger,
      movesFail: this.movesBarredUntilMs !== null,
    };
  }

  #coming(): ReadonlyMap<string, ComingView> {
    const coming = new Map<string, ComingView>();
    const etas = new Map<string, number | null>();
    for (const load of this.health?.loading ?? []) {
      const { eta_secs: eta } = load;
      const readyMs = eta === null ? null : this.#healthMs + eta * 1000;
      etas.set(this.#catalogue.canonicalId(load.model_id), readyMs);
    }
    for (const model of new Set([...this.#pending, ...etas.keys()])) {
      const waitingFor = this.#waitingFor;
      coming.set(model, {
        sinceMs: this.#loadingSinceMs.get(model) ?? null,
        readyMs: etas.get(model) ?? null,
        get waiting() {
          return waitingFor(model);
        },
      });
    }
    return coming;
  }

  #noteLoading(model: string, status: NeuronModel['status']): void {
    if (status !== 'loading') this.#loadingSinceMs.delete(model);
    else if (!this.#loadingSinceMs.has(model)) {
      this.#loadingSinceMs.set(model, this.#clock.monotonicMs());
    }
  }

  /** Its leases changed: counted in the view that is there. */
  #touch(model: string): void {
    const view = this.#view?.models.get(model) as LiveModelView | undefined;
    if (view === undefined) return;
    view.leases = this.leasesOf(model);
    view.lastUsedMs = this.#lastUsedMs.get(model) ?? null;
  }

  #modelView(id: string, state: ModelState): ModelView {
    return toModelView(id, state, this.#catalogue.entries.get(id), {
      leases: this.leasesOf(id),
      lastUsedMs: this.#lastUsedMs.get(id) ?? null,
      isDraining: this.isStranger || this.#draining.has(id),
      doubt: this.#doubts.serves.get(id) ?? null,
    });
  }

  /** Where a model is, and MiB on each of these devices. */
  #shareOf(model: string): MemoryShare | null {
    const row = this.#models.get(model)?.row;
    if (row === undefined) return null;
    const mb = row.vram_used_mb ?? this.#catalogue.entries.get(model)?.vramMb ?? row.vram_estimate_mb ?? 0;
    const devices = row.devices.length > 0 ? row.devices : [this.discovery?.devices[0]?.index ?? 0];
    return { devices, mb: mb / devices.length };
  }
}

const noLoad = { foreignLoad: 0, slots: null, use: null };
