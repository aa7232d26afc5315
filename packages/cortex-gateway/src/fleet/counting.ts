/** Nodes that can count a request's tokens, with the way to ask them. Takes no lease: counting is no use. */

import { planCount } from '../decide/counting.ts';
import type { AliasOptions } from './catalogue.ts';
import type { Fleet } from './fleet.ts';
import type { Lease } from './lease.ts';
import { toError } from './rejections.ts';

export interface CountingNode {
  readonly name: string;
  /** The neuron's name of the model. */
  readonly wireId: string;
  readonly capabilities: readonly string[];
  /** Those of the alias by which it was asked for: they are part of the prompt. */
  readonly options: AliasOptions | null;
  readonly why: string;
  readonly open: Lease['open'];
}

/** In the order in which to ask. Throws when there is none. */
export function countingNodes(
  fleet: Pick<Fleet, 'view' | 'nodes' | 'aliasOptions'>,
  requested: string,
): CountingNode[] {
  const plan = planCount(fleet.view(), requested);
  if (plan.kind === 'reject') throw toError(plan);
  const clients = new Map(fleet.nodes().map(({ name, client }) => [name, client]));
  const options = fleet.aliasOptions(requested);
  return plan.nodes.flatMap(({ node: name, ...rest }) => {
    const client = clients.get(name);
    return client === undefined ? [] : [{ name, ...rest, options, open: (request) => client.open(request) }];
  });
}
