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

/** Requests that a model gets at once before the first reading after its load. */
const slotsGuess = 8;

export class NodeState {
  readonly name: string;
  readonly client: NeuronClient;
  readonly #catalogue: Catalogue;
  readonly #models = new Map<string, ModelState>();
  readonly #leases = new Map<string, number>();
  readonly #lastUsedMs = new Map<string, number>();
  readonly #draining = new Set<string>();
  /** Loaded since the last reading of the devices: their memory is not in it yet. */
  readonly #unread = new Set<string>();
  /** Unloaded, and the readings may not show it yet: who needs their memory waits for it. */
  readonly #returning = new Set<string>();
  #pending: readonly string[] = [];
  #view: NodeView | null = null;
  discovery: Discovery | null = null;
  health: NeuronHealth | null = null;
  /** The neuron restarted: its devices may be others. */
  rediscover = false;
  healthy = false;
  misses = 0;
  /** Grows when the fleet itself changed what is loaded: a poll begun before that is stale. */
  epoch = 0;
  loadCycles = 0;

  constructor(name: string, client: NeuronClient, catalogue: Catalogue) {
    this.name = name;
    this.client = client;
    this.#catalogue = catalogue;
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

  /** `isFresh`: asked after the fleet's last own change. */
  ingestHealth(health: NeuronHealth, isFresh = false): void {
    this.health = health;
    if (isFresh) this.#unread.clear();
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
    if (status === 'loaded') this.#unread.add(model);
    else this.#unread.delete(model);
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

  /** Free MiB of all devices as read, less what was loaded since; null = no reading. */
  readFreeMb(): number | null {
    const readings = this.health?.devices.map((device) => device.vram_free_mb) ?? [];
    if (readings.length === 0) return null;
    const unread = [...this.#shares(this.#unread).values()].reduce((sum, mb) => sum + mb, 0);
    return readings.reduce<number | null>(
      (sum, mb) => (sum === null || mb === null ? null : sum + mb),
      -unread,
    );
  }

  returning(model: string, on: boolean): void {
    if (on) this.#returning.add(model);
    else this.#returning.delete(model);
    this.changed();
  }

  /** Whether the model takes another request, running or in the neuron's own queue. */
  hasSlot(model: string): boolean {
    const load = this.health?.models.find((each) => this.#catalogue.canonicalId(each.id) === model);
    const taken = this.leasesOf(model) + (this.#models.get(model)?.foreignLoad ?? 0);
    if (load === undefined) return taken < slotsGuess || !this.#unread.has(model);
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
    const unread = this.#shares(this.#unread);
    const returning = this.#shares(this.#returning);
    const freeMb = (index: number, totalMb: number): number | null => {
      const read = readings.get(index)?.vram_free_mb ?? null;
      if (read === null) return null;
      return Math.min(totalMb, Math.max(0, read - (unread.get(index) ?? 0) + (returning.get(index) ?? 0)));
    };
    return Object.freeze({
      name: this.name,
      healthy: this.healthy,
      discovered: this.discovery !== null,
      harnesses: this.discovery?.harnesses ?? [],
      devices: (this.discovery?.devices ?? []).map((device) => ({
        index: device.index,
        totalMb: device.vram_total_mb,
        freeMb: freeMb(device.index, device.vram_total_mb),
      })),
      models,
      pending: this.#pending,
    });
  }

  /** MiB per device of those models. */
  #shares(ids: ReadonlySet<string>): ReadonlyMap<number, number> {
    const first = this.discovery?.devices[0]?.index ?? 0;
    const shares = new Map<number, number>();
    for (const id of ids) {
      const row = this.#models.get(id)?.row;
      if (row === undefined) continue;
      const mb = row.vram_used_mb ?? this.#catalogue.entries.get(id)?.vramMb ?? row.vram_estimate_mb ?? 0;
      const devices = row.devices.length > 0 ? row.devices : [first];
      for (const index of devices) shares.set(index, (shares.get(index) ?? 0) + mb / devices.length);
    }
    return shares;
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
      draining: this.#draining.has(id),
      unservable:
        servable === undefined || servable.ok ? null : (servable.detail ?? servable.reason ?? 'cannot serve'),
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
