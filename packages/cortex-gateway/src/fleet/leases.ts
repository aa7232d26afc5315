/** Takes leases, and does what their ends bring: counts them, wakes evictions, hands slots and turns on. */
import type { Clock } from 'cortex-core/daemon/clock';
import { instanceHeader } from 'cortex-core/wire/neuron';
import type { Forward } from '../decide/route.ts';
import type { Ask } from './ask.ts';
import type { AliasOptions } from './catalogue.ts';
import type { Doubts } from './doubts.ts';
import type { HabitBook } from './habit-book.ts';
import type { Lease, UpstreamAnswer } from './lease.ts';
import type { NodeState } from './node-state.ts';
import { routeNote } from './route-note.ts';
import { watchedOpen } from './watched-open.ts';

export interface LeasesOptions {
  readonly clock: Clock;
  readonly habits: HabitBook;
  readonly doubts: Doubts;
  /** What an alias says in the request's place. */
  readonly aliasOptions: (ask: Ask) => AliasOptions | null;
  /** Counts what the asker was served, in tokens. */
  readonly charge: (ask: Ask, promptTokens: number, answerTokens: number) => void;
  /** A request of that model ended there. */
  readonly onReleased: (node: NodeState, model: string) => void;
  /** Whether the fleet still sends there: no other address has the node's name by now. */
  readonly isCurrent: (node: NodeState) => boolean;
  /** Another neuron answered in the node's name. */
  readonly onAnother: (node: NodeState) => void;
}

export class Leases {
  readonly #options: LeasesOptions;
  readonly #nodes = new WeakMap<Lease, NodeState>();

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  /** In the tick of the decision. `cold`: the request waited. */
  take(node: NodeState, ask: Ask, decision: Forward, cold: boolean): Lease {
    const { clock, habits, aliasOptions, charge, onReleased } = this.#options;
    const { model, wireId, terms } = decision;
    const startedMs = clock.monotonicMs();
    node.lease(model, startedMs);
    habits.arrived(node.name, model, startedMs);
    charge(ask, ask.promptTokens ?? 0, 0);
    const watched = watchedOpen(node);
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      watched.end();
      const nowMs = clock.monotonicMs();
      node.release(model, nowMs);
      habits.answered(node.name, model, node.leasesOf(model) === 0, nowMs);
      onReleased(node, model);
    };
    const lease: Lease = {
      node: node.name,
      ...{ model, wireId, terms, ask, cold, release },
      why: routeNote(cold ? `${decision.why}, after a load` : decision.why, terms),
      options: aliasOptions(ask),
      open: (request) => this.#open(node, model, () => watched.open(request)),
      charge: (answerTokens) => charge(ask, 0, answerTokens),
    };
    this.#nodes.set(lease, node);
    return lease;
  }

  /** The node that the lease is of, while what happens with it says something of the fleet. */
  currentNode(lease: Lease): NodeState | undefined {
    const node = this.#nodes.get(lease);
    return node !== undefined && this.#options.isCurrent(node) ? node : undefined;
  }

  async #open(node: NodeState, model: string, send: () => Promise<UpstreamAnswer>): Promise<UpstreamAnswer> {
    const { doubts, onAnother } = this.#options;
    const answer = await send();
    if (answer.status < 300) doubts.drop('serves', node, model);
    const instance = answer.headers[instanceHeader];
    if (typeof instance === 'string' && node.isAnother(instance)) {
      node.estrange();
      onAnother(node);
    }
    return answer;
  }
}
