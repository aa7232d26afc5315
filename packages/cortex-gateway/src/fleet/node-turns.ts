/**
 * When a load job may begin: at most one per node, in the order that `chooseTurn` decides. A job that has to
 * wait is asked again when something changed on its node, or when its time has come.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { toContender, type Wanted } from '../decide/contenders.ts';
import type { FleetView } from '../decide/fleet-view.ts';
import { turnNote } from '../decide/turn-note.ts';
import { type Contender, chooseTurn, type TurnReason, type TurnRules } from '../decide/turns.ts';
import type { LoadJob } from './load-job.ts';

export interface NodeTurnsOptions {
  readonly clock: Clock;
  readonly rules: () => TurnRules;
  readonly view: () => FleetView;
  /** The jobs of a node that have not begun; null = one runs. */
  readonly queued: (node: string) => readonly LoadJob[] | null;
  readonly begin: (job: LoadJob, reason: TurnReason) => void;
  /** When the next turn of that node comes at the latest, ms; null = one runs, or nobody waits for one. */
  readonly held: (node: string, untilMs: number | null) => void;
}

export class NodeTurns {
  readonly #options: NodeTurnsOptions;
  readonly #timers = new Map<string, { cancel(): void }>();
  #isClosed = false;

  constructor(options: NodeTurnsOptions) {
    this.#options = options;
  }

  /** Begins the next job of that node, if one may begin now. */
  consider(name: string): void {
    this.#timers.get(name)?.cancel();
    this.#timers.delete(name);
    if (this.#isClosed) return;
    const { clock, rules } = this.#options;
    const jobs = this.#options.queued(name);
    if (jobs === null || jobs.length === 0) {
      this.#options.held(name, null);
      return;
    }
    const nowMs = clock.monotonicMs();
    const wanted = jobs.map((job) => wantedOf(job, nowMs));
    const turn = chooseTurn(nowMs, this.#contenders(name, wanted), rules());
    this.#options.held(name, turn.kind === 'hold' ? turn.untilMs : null);
    if (turn.kind === 'start') {
      const job = jobs.find((each) => each.model === turn.model);
      if (job !== undefined) this.#options.begin(job, turn.reason);
      return;
    }
    if (turn.untilMs === null) return;
    const timer = clock.setTimer(Math.ceil(turn.untilMs - nowMs), () => this.consider(name));
    this.#timers.set(name, timer);
  }

  /** When the load of that model would have its turn there, for one more request; null = at once. */
  outlook(name: string, model: string): string | null {
    const { clock, rules, queued } = this.#options;
    const jobs = queued(name);
    if (jobs === null) return 'its turn comes after the load that runs there';
    const nowMs = clock.monotonicMs();
    const wanted: Wanted[] = jobs.map((job) => wantedOf(job, nowMs));
    if (jobs.every((job) => job.model !== model)) {
      wanted.push({ model, sinceMs: nowMs, priority: 0, urgent: false });
    }
    return turnNote(model, nowMs, this.#contenders(name, wanted), rules());
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  #contenders(name: string, wanted: readonly Wanted[]): readonly Contender[] {
    const view = this.#options.view();
    const node = view.index?.nodeNamed(name);
    return wanted.map((each) => {
      // a node that left the fleet: the job begins, and says so
      if (node === undefined) return { ...each, loadMs: 0, evict: [] };
      return toContender(view, node, each);
    });
  }
}

function wantedOf(job: LoadJob, nowMs: number): Wanted {
  const waiters = [...job.waiters];
  return {
    model: job.model,
    sinceMs: waiters.reduce((since, each) => Math.min(since, each.sinceMs), nowMs),
    priority: waiters.reduce((most, each) => Math.max(most, each.priority), Number.NEGATIVE_INFINITY),
    urgent: job.explicit,
  };
}
