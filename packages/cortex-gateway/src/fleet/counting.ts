/** Nodes that can count a request's tokens, with the way to ask them. Takes no lease: counting is no use. */
import { AppError } from 'cortex-core/wire/errors';
import { planCount } from '../decide/counting.ts';
import { resolveAlias } from '../decide/fleet-view.ts';
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
  /** A provider's own wire, as in a lease; absent = chat alone. */
  readonly native?: Lease['native'];
  readonly open: Lease['open'];
}

/** In the order in which to ask. Throws when there is none. */
export function countingNodes(
  fleet: Pick<Fleet, 'view' | 'nodes' | 'aliasOptions' | 'providers'>,
  requested: string,
): CountingNode[] {
  const plan = planCount(fleet.view(), requested);
  if (plan.kind === 'reject') return hostedCounters(fleet, requested, toError(plan));
  const clients = new Map(fleet.nodes().map(({ name, client }) => [name, client]));
  const options = fleet.aliasOptions(requested);
  return plan.nodes.flatMap(({ node: name, ...rest }) => {
    const client = clients.get(name);
    return client === undefined ? [] : [{ name, ...rest, options, open: (request) => client.open(request) }];
  });
}

/** In the place of `cause`: of the vendors' APIs Anthropic's alone counts. Throws where nobody does. */
function hostedCounters(
  fleet: Pick<Fleet, 'view' | 'aliasOptions' | 'providers'>,
  requested: string,
  cause: AppError,
): CountingNode[] {
  const id = resolveAlias(fleet.view(), requested);
  const hosts = fleet.providers.all.filter((each) => each.modelOf(id) !== null);
  if (hosts.length === 0) throw cause;
  const options = fleet.aliasOptions(requested);
  const able = hosts.flatMap((host): CountingNode[] => {
    const model = host.modelOf(id);
    const { name, kind } = host.spec;
    if (model === null || kind !== 'anthropic') return [];
    const why = `last resort: ${cause.message}`;
    return [
      {
        ...{ name, wireId: id, capabilities: model.capabilities, options, why },
        ...(options === null ? { native: 'messages' as const } : {}),
        open: async (request) => {
          const refusal = host.refusal(id);
          if (refusal !== null) throw new AppError(refusal.code, `provider ${name} ${refusal.reason}`);
          const lease = host.lease({ model: requested }, model, why, options);
          // a whole answer has been read when `open` resolves
          return await lease.open(request).finally(() => lease.release());
        },
      },
    ];
  });
  if (able.length > 0) return able;
  // a node that may have it is waited for
  if (fleet.view().nodes.some(({ models, isAwaited }) => models.has(id) || isAwaited)) throw cause;
  const names = hosts.map(({ spec }) => spec.name).join(', ');
  throw new AppError(
    'wrong_modality',
    `model "${requested.slice(0, 200)}" is on no node, and OpenAI's API, by which ${names} serves it, has ` +
      'no count of tokens; send the request itself and read its usage',
    { param: 'model' },
  );
}
