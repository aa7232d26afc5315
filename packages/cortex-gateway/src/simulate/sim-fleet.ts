/** The machines of a simulation and what is on them, and how decisions see it. */
import { FleetIndex } from '../decide/fleet-index.ts';
import type {
  CatalogueEntry,
  ComingView,
  EvictionStrategy,
  FleetView,
  ModelView,
  NodeView,
} from '../decide/fleet-view.ts';
import { type Habits, noHabits } from '../decide/habits.ts';
import { RateBook } from '../decide/rate-book.ts';
import type { TurnRules } from '../decide/turns.ts';
import type { SimRequest } from './simulation.ts';

export interface SimNodeSpec {
  readonly name: string;
  /** MiB of each device. */
  readonly devicesMb: readonly number[];
  readonly loadMbPerSec: number;
  readonly prefillTokensPerSec: number;
  readonly decodeTokensPerSec: number;
  /** Requests that a model answers at once. */
  readonly slots: number;
}

export interface SimFleetSpec {
  readonly nodes: readonly SimNodeSpec[];
  readonly models: readonly CatalogueEntry[];
  /** Of one unload. */
  readonly unloadMs: number;
}

export interface SimModel {
  readonly id: string;
  readonly mb: number;
  readonly devices: readonly number[];
  status: 'loaded' | 'loading' | 'unloading';
  leases: number;
  lastUsedMs: number | null;
  draining: boolean;
}

/** A load that is under way; its victims drain until `isUnloading`. */
export interface SimTurn {
  readonly model: string;
  readonly victims: readonly SimModel[];
  readonly devices: readonly number[];
  /** When its load began; null = its victims are not gone yet. */
  loadingSinceMs: number | null;
  isUnloading: boolean;
}

export interface SimNode {
  readonly spec: SimNodeSpec;
  readonly models: Map<string, SimModel>;
  readonly habits: Map<string, Habits>;
  /** Requests that wait for a load here, by model. */
  readonly jobs: Map<string, Set<SimRequest>>;
  turn: SimTurn | null;
  /** When it is asked again whose turn it is. */
  wakeMs: number | null;
  readonly slot: number;
  busySinceMs: number;
  running: number;
  busyMs: number;
  loadingMs: number;
}

export interface SimFleet {
  readonly nodes: readonly SimNode[];
  readonly byName: ReadonlyMap<string, SimNode>;
  readonly rates: RateBook;
  /** Kept up to date, node by node. */
  readonly index: FleetIndex;
  readonly view: FleetView;
}

export interface SimSources {
  readonly nowMs: () => number;
  readonly rules: TurnRules;
  /** Requests that stand in line for a model. */
  readonly waiting: (model: string) => number;
}

export function createSimFleet(
  spec: SimFleetSpec,
  strategy: EvictionStrategy,
  { nowMs, rules, waiting }: SimSources,
): SimFleet {
  const nodes = [...spec.nodes]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(
      (node, slot): SimNode => ({
        spec: node,
        models: new Map(),
        habits: new Map(),
        jobs: new Map(),
        turn: null,
        wakeMs: null,
        slot,
        busySinceMs: 0,
        running: 0,
        busyMs: 0,
        loadingMs: 0,
      }),
    );
  const byName = new Map(nodes.map((node) => [node.spec.name, node]));
  const habits = (node: string, model: string) => byName.get(node)?.habits.get(model);
  const catalogue = new Map(spec.models.map((model) => [model.id, model]));
  const rates = new RateBook();
  const loadMbS = Object.fromEntries(nodes.map(({ spec: { name, loadMbPerSec } }) => [name, loadMbPerSec]));
  rates.restore({ rates: [], loadMbS });
  const facts = { catalogue, aliases: new Map<string, string>(), strategy, rates };
  const index = new FleetIndex(nodes.map(toNodeView), facts);
  return {
    nodes,
    byName,
    rates,
    index,
    view: {
      ...facts,
      nodes: index.nodes,
      index,
      terms: {
        get nowMs() {
          return nowMs();
        },
        gapMs: (node, model) => habits(node, model)?.gapMs ?? null,
      },
      turns: { rules: () => rules, habits, waiting },
      isOnEveryDisk: true,
    },
  };
}

export function habitsOf(node: SimNode, model: string): Habits {
  return node.habits.get(model) ?? noHabits;
}

/** The node changed: decisions see it as it is now. */
export function refreshView(fleet: SimFleet, node: SimNode): NodeView {
  const view = toNodeView(node);
  fleet.index.update(node.slot, view);
  return view;
}

function toNodeView(node: SimNode): NodeView {
  const { spec } = node;
  const taken = spec.devicesMb.map(() => 0);
  const models = new Map<string, ModelView>();
  for (const model of node.models.values()) {
    for (const device of model.devices) {
      taken[device] = (taken[device] ?? 0) + model.mb / model.devices.length;
    }
    models.set(model.id, toModelView(model, spec.slots));
  }
  const pending = [...new Set([...(node.turn === null ? [] : [node.turn.model]), ...node.jobs.keys()])];
  const coming = new Map(pending.map((model) => [model, toComing(node, model)]));
  return {
    name: spec.name,
    healthy: true,
    discovered: true,
    harnesses: [],
    devices: spec.devicesMb.map((totalMb, index) => ({
      index,
      totalMb,
      freeMb: totalMb - (taken[index] ?? 0),
    })),
    models,
    pending,
    turnMs: node.turn === null ? node.wakeMs : null,
    coming,
  };
}

function toComing({ turn, jobs }: SimNode, model: string): ComingView {
  return {
    sinceMs: turn?.model === model ? turn.loadingSinceMs : null,
    readyMs: null,
    waiting: jobs.get(model)?.size ?? 0,
  };
}

function toModelView(model: SimModel, slots: number): ModelView {
  return {
    id: model.id,
    wireId: model.id,
    harness: 'llamacpp',
    status: model.status,
    devices: model.devices,
    vramMb: model.mb,
    foreignLoad: 0,
    leases: model.leases,
    slots,
    lastUsedMs: model.lastUsedMs,
    draining: model.draining,
    unservable: null,
    capabilities: [],
    limit: null,
    cost: null,
    toolCall: false,
    reasoning: false,
  };
}
