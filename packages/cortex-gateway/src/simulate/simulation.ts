/**
 * A fleet on a virtual clock, driven by a trace. Decisions are those of the gateway: `route`, `considerNode`,
 * `chooseTurn`, `nextInLine`. Effects are the times of the fleet file: a load takes its size over the node's
 * rate, an answer its prompt over the prefill rate and its tokens over the decode rate, whatever else runs.
 */
import { toContender } from '../decide/contenders.ts';
import {
  chargeShare,
  createFairShare,
  enterShare,
  type FairShare,
  type InLine,
  nextInLine,
} from '../decide/fair-share.ts';
import type { EvictionStrategy } from '../decide/fleet-view.ts';
import { afterAnswer, afterArrival, afterLoad, afterUnload, type Habits } from '../decide/habits.ts';
import { considerNode } from '../decide/placement.ts';
import { chooseTurn, type TurnReason, type TurnRules } from '../decide/turns.ts';
import { decideRoute } from './decide-route.ts';
import { createEventQueue, type EventQueue } from './event-queue.ts';
import {
  createSimFleet,
  habitsOf,
  refreshView,
  type SimFleet,
  type SimFleetSpec,
  type SimModel,
  type SimNode,
} from './sim-fleet.ts';
import type { TraceRequest } from './trace.ts';

export interface SimRequest extends InLine {
  readonly trace: TraceRequest;
  readonly sinceMs: number;
  /** Requests that waited for a model when it came. */
  readonly ahead: number;
}

/** One request's fate; times in ms. */
export interface Outcome {
  readonly trace: TraceRequest;
  readonly arrivedMs: number;
  /** Until a model took it. */
  readonly waitMs: number;
  readonly firstTokenMs: number;
  readonly serviceMs: number;
  readonly ahead: number;
}

export interface SimulationResult {
  readonly outcomes: readonly Outcome[];
  /** Requests that could not be placed, with the reason. */
  readonly rejected: readonly { readonly trace: TraceRequest; readonly reason: string }[];
  readonly loads: number;
  readonly evictions: number;
  readonly swaps: Readonly<Record<TurnReason, number>>;
  readonly endMs: number;
  /** Share of the nodes' time in which they answered, and in which they loaded. */
  readonly busy: number;
  readonly loading: number;
}

export interface SimulationOptions {
  readonly fleet: SimFleetSpec;
  readonly trace: readonly TraceRequest[];
  readonly strategy: EvictionStrategy;
  readonly rules: TurnRules;
}

export function simulate(options: SimulationOptions): SimulationResult {
  return new Simulation(options).run();
}

class Simulation {
  readonly #options: SimulationOptions;
  readonly #queue: EventQueue;
  readonly #fleet: SimFleet;
  readonly #parked = new Map<string, Set<SimRequest>>();
  readonly #share: FairShare = createFairShare();
  /** By the request they wait for. */
  readonly #followers = new Map<string, TraceRequest[]>();
  readonly #unanswered = new Map<string, number>();
  readonly #outcomes: Outcome[] = [];
  readonly #rejected: { trace: TraceRequest; reason: string }[] = [];
  readonly #swaps = { fits: 0, idle: 0, due: 0, asked: 0 };
  readonly #waiting = new Set<SimRequest>();
  #loads = 0;
  #evictions = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#queue = createEventQueue();
    this.#fleet = createSimFleet(options.fleet, options.strategy, {
      nowMs: () => this.#queue.nowMs,
      rules: options.rules,
      waiting: (model) => this.#parked.get(model)?.size ?? 0,
    });
  }

  run(): SimulationResult {
    const { trace } = this.#options;
    for (const each of trace) {
      if (each.after.length === 0) this.#queue.at(each.atMs, () => this.#arrive(each));
      else this.#unanswered.set(each.id, each.after.length);
      for (const id of each.after) this.#followers.set(id, [...(this.#followers.get(id) ?? []), each]);
    }
    this.#queue.run(1000 + trace.length * 200);
    const endMs = this.#queue.nowMs;
    const { nodes } = this.#fleet;
    const span = Math.max(1, endMs * nodes.length);
    return {
      outcomes: this.#outcomes,
      rejected: this.#rejected,
      loads: this.#loads,
      evictions: this.#evictions,
      swaps: this.#swaps,
      endMs,
      busy: nodes.reduce((ms, node) => ms + node.busyMs, 0) / span,
      loading: nodes.reduce((ms, node) => ms + node.loadingMs, 0) / span,
    };
  }

  #arrive(trace: TraceRequest): void {
    const { key, session, priority, model } = trace;
    const ahead = this.#waiting.size;
    const request: SimRequest = { trace, key, session, priority, sinceMs: this.#queue.nowMs, ahead };
    const decision = decideRoute(this.#fleet, trace, this.#queue.nowMs, true);
    if (decision.kind === 'reject') {
      this.#reject(request, decision.message);
      return;
    }
    const node = this.#node(decision.node);
    if (decision.kind === 'forward' && !this.#parked.has(model) && this.#hasSlot(node, model)) {
      this.#start(request, node);
      return;
    }
    this.#note(node, model, (habits) => afterArrival(habits, this.#queue.nowMs));
    enterShare(this.#share, request, this.#waiting);
    this.#waiting.add(request);
    if (decision.kind === 'load' || (decision.kind === 'wait' && this.#isComing(node, model))) {
      this.#attach(request, node);
    } else {
      this.#park(request);
      if (decision.kind === 'forward') this.#wake(model);
    }
  }

  #attach(request: SimRequest, node: SimNode): void {
    const { model } = request.trace;
    const job = node.jobs.get(model) ?? new Set();
    job.add(request);
    node.jobs.set(model, job);
    this.#changed(node);
    this.#consider(node);
  }

  #park(request: SimRequest): void {
    const { model } = request.trace;
    const line = this.#parked.get(model) ?? new Set();
    line.add(request);
    this.#parked.set(model, line);
  }

  /** Who is parked for that model decides again, until one has to stay. */
  #wake(model: string): void {
    const line = this.#parked.get(model);
    if (line === undefined) return;
    while (line.size > 0) {
      const next = nextInLine(line, this.#share, this.#queue.nowMs, this.#options.rules.maxWaitMs);
      if (next === null) return;
      const decision = decideRoute(this.#fleet, next.trace, this.#queue.nowMs, false);
      if (decision.kind === 'reject') {
        line.delete(next);
        this.#reject(next, decision.message);
        continue;
      }
      const node = this.#node(decision.node);
      if (decision.kind === 'forward') {
        if (!this.#hasSlot(node, model)) return;
        line.delete(next);
        this.#start(next, node);
      } else if (decision.kind === 'load' || this.#isComing(node, model)) {
        line.delete(next);
        this.#attach(next, node);
      } else return;
    }
    this.#parked.delete(model);
  }

  #start(request: SimRequest, node: SimNode): void {
    const { trace } = request;
    const { nowMs } = this.#queue;
    const held = node.models.get(trace.model) as SimModel;
    const prefillMs = (trace.promptTokens / node.spec.prefillTokensPerSec) * 1000;
    const serviceMs = prefillMs + (trace.completionTokens / node.spec.decodeTokensPerSec) * 1000;
    const waitMs = nowMs - request.sinceMs;
    this.#waiting.delete(request);
    this.#outcomes.push({
      trace,
      arrivedMs: request.sinceMs,
      waitMs,
      firstTokenMs: waitMs + prefillMs,
      serviceMs,
      ahead: request.ahead,
    });
    held.leases++;
    held.lastUsedMs = nowMs;
    if (node.running++ === 0) node.busySinceMs = nowMs;
    this.#note(node, trace.model, (habits) => afterArrival(habits, nowMs));
    chargeShare(this.#share, request, trace.promptTokens, 0);
    this.#changed(node);
    this.#queue.at(nowMs + serviceMs, () => this.#finish(request, node, held, serviceMs));
  }

  #finish(request: SimRequest, node: SimNode, held: SimModel, serviceMs: number): void {
    const { trace } = request;
    const { nowMs } = this.#queue;
    held.leases--;
    held.lastUsedMs = nowMs;
    if (--node.running === 0) node.busyMs += nowMs - node.busySinceMs;
    const isIdle = held.leases === 0;
    this.#note(node, trace.model, (habits) => afterAnswer(habits, isIdle, nowMs));
    this.#fleet.rates.note(node.spec.name, trace.model, 'serviceMs', serviceMs);
    this.#fleet.rates.note(node.spec.name, trace.model, 'prefillTokS', node.spec.prefillTokensPerSec);
    this.#fleet.rates.note(node.spec.name, trace.model, 'decodeTokS', node.spec.decodeTokensPerSec);
    chargeShare(this.#share, request, 0, trace.completionTokens);
    this.#changed(node);
    this.#answered(trace);
    this.#wake(trace.model);
    if (node.turn !== null) this.#advance(node);
    else this.#consider(node);
  }

  #answered(trace: TraceRequest): void {
    for (const follower of this.#followers.get(trace.id) ?? []) {
      const left = (this.#unanswered.get(follower.id) ?? 1) - 1;
      this.#unanswered.set(follower.id, left);
      if (left === 0) this.#queue.at(this.#queue.nowMs + follower.atMs, () => this.#arrive(follower));
    }
  }

  #reject(request: SimRequest, reason: string): void {
    this.#waiting.delete(request);
    this.#rejected.push({ trace: request.trace, reason });
    this.#answered(request.trace);
  }

  /** Begins the next turn of that node, if one may begin now. */
  #consider(node: SimNode): void {
    if (node.turn !== null || node.jobs.size === 0) return;
    const { nowMs } = this.#queue;
    const view = refreshView(this.#fleet, node);
    const contenders = [...node.jobs].map(([model, requests]) => {
      let sinceMs = nowMs;
      let priority = Number.NEGATIVE_INFINITY;
      for (const request of requests) {
        sinceMs = Math.min(sinceMs, request.sinceMs);
        priority = Math.max(priority, request.priority);
      }
      return toContender(this.#fleet.view, view, { model, sinceMs, priority, urgent: false });
    });
    const turn = chooseTurn(nowMs, contenders, this.#options.rules);
    if (turn.kind === 'start') {
      this.#begin(node, turn.model, turn.reason);
      return;
    }
    if (turn.untilMs === null || node.wakeMs === turn.untilMs) return;
    node.wakeMs = turn.untilMs;
    this.#changed(node);
    this.#queue.at(turn.untilMs, () => {
      if (node.wakeMs !== turn.untilMs) return;
      node.wakeMs = null;
      this.#consider(node);
    });
  }

  #begin(node: SimNode, model: string, reason: TurnReason): void {
    const view = refreshView(this.#fleet, node);
    const candidate = considerNode(this.#fleet.view, view, model);
    if ('reason' in candidate) {
      for (const request of this.#takeJob(node, model)) this.#reject(request, candidate.reason);
      this.#consider(node);
      return;
    }
    const victims = candidate.placement.evict.map((each) => node.models.get(each.model) as SimModel);
    for (const victim of victims) victim.draining = true;
    if (victims.length > 0) this.#swaps[reason]++;
    const devices = candidate.placement.spec.devices ?? [0];
    node.wakeMs = null;
    node.turn = { model, victims, devices, loadingSinceMs: null, isUnloading: false };
    this.#changed(node);
    this.#advance(node);
  }

  /** Unloads the victims once none of them answers any more, then loads. */
  #advance(node: SimNode): void {
    const { turn } = node;
    if (turn === null || turn.isUnloading || turn.victims.some((victim) => victim.leases > 0)) return;
    turn.isUnloading = true;
    for (const victim of turn.victims) victim.status = 'unloading';
    refreshView(this.#fleet, node);
    const unloadMs = turn.victims.length * this.#options.fleet.unloadMs;
    this.#queue.at(this.#queue.nowMs + unloadMs, () => this.#load(node));
  }

  #load(node: SimNode): void {
    const turn = node.turn as NonNullable<SimNode['turn']>;
    for (const victim of turn.victims) {
      node.models.delete(victim.id);
      this.#evictions++;
      this.#note(node, victim.id, afterUnload);
      this.#changed(node);
    }
    turn.loadingSinceMs = this.#queue.nowMs;
    const mb = this.#fleet.view.catalogue.get(turn.model)?.vramMb ?? 0;
    const model: SimModel = {
      id: turn.model,
      mb,
      devices: turn.devices,
      status: 'loading',
      leases: 0,
      lastUsedMs: null,
      draining: false,
    };
    node.models.set(turn.model, model);
    this.#changed(node);
    for (const victim of turn.victims) this.#wake(victim.id);
    const loadMs = (mb / node.spec.loadMbPerSec) * 1000;
    this.#queue.at(this.#queue.nowMs + loadMs, () => this.#loaded(node, model, loadMs));
  }

  #loaded(node: SimNode, model: SimModel, loadMs: number): void {
    const { nowMs } = this.#queue;
    this.#loads++;
    node.loadingMs += loadMs;
    model.status = 'loaded';
    model.lastUsedMs = nowMs;
    this.#note(node, model.id, (habits) => afterLoad(habits, nowMs));
    this.#fleet.rates.noteLoad(node.spec.name, model.id, loadMs, model.mb);
    for (const request of this.#takeJob(node, model.id)) this.#park(request);
    node.turn = null;
    this.#changed(node);
    this.#wake(model.id);
    this.#consider(node);
  }

  #takeJob(node: SimNode, model: string): readonly SimRequest[] {
    const requests = [...(node.jobs.get(model) ?? [])];
    node.jobs.delete(model);
    this.#changed(node);
    return requests;
  }

  #isComing(node: SimNode, model: string): boolean {
    return node.jobs.has(model) || node.turn?.model === model;
  }

  #hasSlot(node: SimNode, model: string): boolean {
    return (node.models.get(model)?.leases ?? 0) < node.spec.slots;
  }

  #note(node: SimNode, model: string, change: (habits: Habits) => Habits): void {
    node.habits.set(model, change(habitsOf(node, model)));
  }

  #changed(node: SimNode): void {
    refreshView(this.#fleet, node);
  }

  #node(name: string): SimNode {
    return this.#fleet.byName.get(name) as SimNode;
  }
}
