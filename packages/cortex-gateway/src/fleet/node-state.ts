/**
 * What the fleet knows of one node. Only the fleet writes it; everyone else sees `toView()`, frozen and
 * cached.
 */
import type { Activation, Discovery, LoadProgress, NeuronHealth, NeuronModel } from 'cortex-core/wire/neuron';
import type { ModelView, NodeView } from '../decide/fleet-view.ts';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import type { Catalogue } from './catalogue.ts';

interface ModelState {
  readonly wireId: string;
  row: NeuronModel;
  /** in_flight + queue_depth as polled, less our own leases at that moment. */
  foreignLoad: number;
}

export class NodeState {
  readonly name: string;
  readonly client: NeuronClient;
  readonly #catalogue: Catalogue;
  readonly #models = new Map<string, ModelState>();
  readonly #leases = new Map<string, number>();
  readonly #lastUsedMs = new Map<string, number>();
  readonly #draining = new Set<string>();
  /** Why a model that is said to be loaded is not believed to be. */
  readonly #doubts = new Map<string, string>();
  #instance: string | null = null;
  #pending: readonly string[] = [];
  #view: NodeView | null = null;
  /** Another neuron answers here: nothing is sent until it has told what it has. */
  isStranger = false;
  discovery: Discovery | null = null;
  health: NeuronHealth | null = null;
  /** The neuron restarted: its devices may be others. */
  rediscover = false;
  healthy = false;
  misses = 0;
  /** Grows when the fleet itself changed what is loaded: a poll begun before that is stale. */
  epoch = 0;
  /** The epoch that the last poll has seen. */
  polledEpoch = 0;
  loadCycles = 0;
  /** No moves are planned here until then: one failed. */
  movesBarredUntilMs: number | null = null;

  constructor(name: string, client: NeuronClient, catalogue: Catalogue) {
    this.name = name;
    this.client = client;
    this.#catalogue = catalogue;
  }

  /** The fleet changed what is loaded since the last poll: memory readings are of before. */
  get isStale(): boolean {
    return this.epoch !== this.polledEpoch;
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
    this.#instance = instance;
    this.isStranger = false;
    this.changed();
  }

  setDoubt(model: string, why: string | null): void {
    if (why === null) this.#doubts.delete(model);
    else this.#doubts.set(model, why);
    this.changed();
  }

  isDoubted(model: string): boolean {
    return this.#doubts.has(model);
  }

  get activation(): Activation | null {
    return this.health?.activation ?? null;
  }

  progressOf(model: string): LoadProgress | null {
    return this.health?.loading.find((each) => this.#catalogue.canonicalId(each.model_id) === model) ?? null;
  }

  ingest(rows: readonly NeuronModel[]): void {
    const seen = new Set<string>();
    for (const row of rows) {
      const id = this.#catalogue.canonicalId(row.id);
      seen.add(id);
      const state = this.#models.get(id);
      this.#models.set(id, { wireId: row.id, row, foreignLoad: state?.foreignLoad ?? 0 });
    }
    for (const id of this.#models.keys()) if (!seen.has(id)) this.#models.delete(id);
    this.changed();
  }

  ingestHealth(health: NeuronHealth): void {
    this.health = health;
    for (const state of this.#models.values()) state.foreignLoad = 0;
    for (const load of health.models) {
      const id = this.#catalogue.canonicalId(load.id);
      const state = this.#models.get(id);
      if (state === undefined) continue;
      state.foreignLoad = Math.max(0, load.in_flight + load.queue_depth - (this.#leases.get(id) ?? 0));
    }
    this.changed();
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
    this.#models.set(model, { wireId, row: next, foreignLoad: 0 });
    this.epoch++;
    this.changed();
  }

  lease(model: string, nowMs: number): void {
    this.#leases.set(model, (this.#leases.get(model) ?? 0) + 1);
    this.#lastUsedMs.set(model, nowMs);
    this.changed();
  }

  release(model: string, nowMs: number): void {
    const left = (this.#leases.get(model) ?? 1) - 1;
    if (left > 0) this.#leases.set(model, left);
    else this.#leases.delete(model);
    this.#lastUsedMs.set(model, nowMs);
    this.changed();
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

  setPending(models: readonly string[]): void {
    this.#pending = models;
    this.changed();
  }

  changed(): void {
    this.#view = null;
  }

  toView(): NodeView {
    this.#view ??= this.#build();
    return this.#view;
  }

  #build(): NodeView {
    const readings = new Map(this.health?.devices.map((device) => [device.index, device]) ?? []);
    const models = new Map<string, ModelView>();
    for (const [id, state] of this.#models) models.set(id, this.#modelView(id, state));
    return Object.freeze({
      name: this.name,
      healthy: this.healthy,
      discovered: this.discovery !== null,
      harnesses: this.discovery?.harnesses ?? [],
      devices: (this.discovery?.devices.filter((device) => device.usable !== false) ?? []).map((device) => ({
        index: device.index,
        totalMb: device.vram_total_mb,
        freeMb: readings.get(device.index)?.vram_free_mb ?? null,
        kind: device.kind,
        loadCycles: readings.get(device.index)?.load_cycles ?? 0,
      })),
      models,
      pending: this.#pending,
      movesFail: this.movesBarredUntilMs !== null,
    });
  }

  #modelView(id: string, { wireId, row, foreignLoad }: ModelState): ModelView {
    const entry = this.#catalogue.entries.get(id);
    const servable = row.servable;
    return Object.freeze({
      id,
      wireId,
      harness: row.harness,
      status: row.status,
      devices: row.devices,
      vramMb: row.vram_used_mb ?? entry?.vramMb ?? row.vram_estimate_mb,
      foreignLoad,
      leases: this.leasesOf(id),
      lastUsedMs: this.#lastUsedMs.get(id) ?? null,
      draining: this.isStranger || this.#draining.has(id),
      unservable:
        servable === undefined || servable.ok
          ? (this.#doubts.get(id) ?? null)
          : (servable.detail ?? servable.reason ?? 'cannot serve'),
      capabilities:
        entry !== undefined && entry.capabilities.length > 0 ? entry.capabilities : row.capabilities,
      limit: row.limit ?? entry?.limit ?? null,
      cost: entry?.cost ?? row.cost ?? null,
      toolCall: row.tool_call,
      reasoning: row.reasoning,
    });
  }
}

function newRow(id: string, status: NeuronModel['status'], devices: readonly number[]): NeuronModel {
  return {
    id,
    harness: 'llamacpp',
    status,
    devices: [...devices],
    vram_used_mb: null,
    vram_estimate_mb: null,
    capabilities: [],
    tool_call: false,
    reasoning: false,
    digest: null,
  };
}
