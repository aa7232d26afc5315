/** How models are listed: loaded or loadable, where, with which limits. */
import type { ModelLimit } from 'cortex-core/wire/neuron';
import {
  type FleetView,
  type HostedModel,
  isPattern,
  type ModelView,
  resolveAlias,
} from '../decide/fleet-view.ts';
import { FeasibleNodes, holdersOf } from './feasible-nodes.ts';

/** The tightest limit that nodes which hold the model tell, else the catalogue's, else a provider's. */
export function advertisedLimit(view: FleetView, requested: string): ModelLimit | null {
  const model = resolveAlias(view, requested);
  let tightest: ModelLimit | null = null;
  // asked with every request: not a walk over all nodes
  for (const node of holdersOf(view, model)) {
    const limit = node.models.get(model)?.limit;
    if (limit && (tightest === null || limit.context < tightest.context)) tightest = limit;
  }
  const hosted = view.hosted?.of(model).find(({ limit }) => limit !== null);
  return tightest ?? view.catalogue.get(model)?.limit ?? hosted?.limit ?? null;
}

/** Ids of all that is loaded or can be. Sorted; an alias only where its target is known. */
export function modelIds(view: FleetView): string[] {
  const ids = new Set(view.catalogue.keys());
  for (const id of presentIds(view)) ids.add(id);
  for (const id of view.hosted?.ids() ?? []) ids.add(id);
  for (const [alias, target] of view.aliases) if (ids.has(target) && !isPattern(alias)) ids.add(alias);
  return [...ids].sort();
}

/** Whether a request may name it: an id, or what an alias stands for. */
export function isKnown(view: FleetView, id: string): boolean {
  return [id, resolveAlias(view, id)].some(
    (each) =>
      view.catalogue.has(each) || holdersOf(view, each).length > 0 || (view.hosted?.of(each).length ?? 0) > 0,
  );
}

/** `feasible`: one for a listing of many. `feasible_on` is found when it is read: not every list shows it. */
export function describeModel(
  view: FleetView,
  id: string,
  createdSecs: number,
  feasible = new FeasibleNodes(view),
) {
  const model = resolveAlias(view, id);
  const entry = view.catalogue.get(model);
  const held = holdersOf(view, model).flatMap((node) => {
    const found = node.models.get(model);
    return found === undefined ? [] : [{ node, found }];
  });
  const limit = advertisedLimit(view, model);
  const hosted = view.hosted?.of(model) ?? [];
  const cost =
    entry?.cost ??
    held.find(({ found }) => found.cost !== null)?.found.cost ??
    hosted.find((host) => host.cost !== null)?.cost ??
    null;
  const isOurs = entry !== undefined || held.length > 0;
  const inMemory = held.filter(({ found }) => found.status !== 'available' && found.status !== 'unknown');
  return {
    id,
    object: 'model' as const,
    created: createdSecs,
    owned_by: isOurs ? 'cortex' : (hosted[0]?.provider ?? 'cortex'),
    loaded:
      held.some(
        ({ node, found }) => node.healthy && found.status === 'loaded' && found.unservable === null,
      ) || hosted.some(({ refusal }) => refusal === null),
    get feasible_on() {
      return feasible.of(model);
    },
    locations: [
      ...inMemory.map(({ node, found }) => locationOf(node.name, found)),
      ...hosted.map(hostedLocationOf),
    ],
    capabilities: union(
      [...held.map(({ found }) => found.capabilities), ...hosted.map(({ capabilities }) => capabilities)],
      entry?.capabilities ?? [],
    ),
    ...(limit === null ? {} : { limit }),
    ...(cost === null ? {} : { cost }),
    tool_call: held.some(({ found }) => found.toolCall) || hosted.some(can('tools')),
    reasoning: held.some(({ found }) => found.reasoning) || hosted.some(can('reasoning')),
    ...(limit === null
      ? {}
      : {
          max_model_len: limit.context,
          max_input_tokens: limit.input ?? limit.context,
          max_output_tokens: limit.output,
          max_tokens: limit.output,
        }),
    ...(model === id ? {} : { alias_of: model }),
    type: 'model' as const,
    display_name: id,
    created_at: new Date(createdSecs * 1000).toISOString(),
    lifecycle: 'active',
  };
}

function presentIds({ index, nodes }: FleetView): Iterable<string> {
  return index === undefined ? nodes.flatMap((node) => [...node.models.keys()]) : index.presentIds();
}

function locationOf(node: string, model: ModelView) {
  return {
    node,
    status: model.status,
    devices: model.devices,
    vram_estimate_mb: model.vramMb,
    ...(model.unservable === null ? {} : { unservable: model.unservable }),
  };
}

/** At a provider, which takes no memory of ours. */
function hostedLocationOf({ provider, refusal }: HostedModel) {
  return {
    node: provider,
    status: 'hosted' as const,
    devices: [],
    vram_estimate_mb: null,
    ...(refusal === null ? {} : { unservable: refusal }),
  };
}

function can(capability: string): (model: HostedModel) => boolean {
  return ({ capabilities }) => capabilities.includes(capability);
}

function union(lists: readonly (readonly string[])[], more: readonly string[]): string[] {
  return [...new Set([...more, ...lists.flat()])];
}
