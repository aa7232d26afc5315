/** How models are used, by node: since when they are there, how long they usually pause. */
import {
  afterAnswer,
  afterArrival,
  afterLoad,
  afterReading,
  afterUnload,
  type Habits,
  noHabits,
} from '../decide/habits.ts';
import type { FleetEvent } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';

export class HabitBook {
  readonly #nodes = new Map<string, Map<string, Habits>>();

  of(node: string, model: string): Habits | undefined {
    return this.#nodes.get(node)?.get(model);
  }

  arrived(node: string, model: string, nowMs: number): void {
    this.#note(node, model, (habits) => afterArrival(habits, nowMs));
  }

  /** `isIdle`: it was the last request there. */
  answered(node: string, model: string, isIdle: boolean, nowMs: number): void {
    this.#note(node, model, (habits) => afterAnswer(habits, isIdle, nowMs));
  }

  happened(event: FleetEvent, nowMs: number): void {
    if (event.kind === 'loaded') this.#note(event.node, event.model, (habits) => afterLoad(habits, nowMs));
    else if (event.kind === 'evicted') this.#note(event.node, event.model, afterUnload);
  }

  /** What the node told of requests and loads that are not ours. */
  polled(node: NodeState): void {
    for (const { id, foreignLoad, leases } of node.toView().models.values()) {
      const use = node.readUse(id);
      if (use === null) continue;
      const usedMs = foreignLoad + leases > 0 ? null : use.usedMs;
      this.#note(node.name, id, (habits) => afterReading(habits, use.residentSinceMs, usedMs));
    }
  }

  /** The node left the fleet. */
  forget(node: string): void {
    this.#nodes.delete(node);
  }

  #note(node: string, model: string, change: (habits: Habits) => Habits): void {
    const models = this.#nodes.get(node) ?? new Map<string, Habits>();
    this.#nodes.set(node, models);
    models.set(model, change(models.get(model) ?? noHabits));
  }
}
