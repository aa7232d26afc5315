/**
 * Which nodes have a model or can load it, for listings of all models.
 *
 * Problem: a plan for every model on every node is thousands times thousands of plans. Design: to a node that
 * does not have them, models differ by their size, and by a few things that many have in common (harness,
 * devices, priority). For each such kind the most that each node can make free is found once; then a model is
 * a comparison per node. A plan is made where a node has the model in some state, where it is pinned, and
 * where moves might make room.
 */

import { partsByKind } from '../decide/device-kinds.ts';
import { needOf, roomFor } from '../decide/eviction.ts';
import type { CatalogueEntry, FleetView, NodeView } from '../decide/fleet-view.ts';
import { sizeElsewhere } from '../decide/fleet-view.ts';
import { considerNode, refusalOf } from '../decide/placement.ts';

/** MiB by node, in the order of the view; -1 = such a model cannot be there whatever its size. */
interface Rooms {
  /** When all go that may. */
  readonly most: Float64Array;
  /** Free on all devices together, where moves may make room; -1 = nothing can move. */
  readonly loose: Float64Array;
}

const none: ReadonlyMap<string, string> = new Map();

export class FeasibleNodes {
  readonly #view: FleetView;
  readonly #rooms = new Map<string, Rooms>();

  constructor(view: FleetView) {
    this.#view = view;
  }

  /** Names, in their order. */
  of(model: string): string[] {
    const view = this.#view;
    const entry = view.catalogue.get(model);
    if (entry === undefined || entry.pinnedOn.length > 0) {
      const pinnedOn = new Set(entry?.pinnedOn);
      const mayBe = (node: NodeView): boolean => pinnedOn.has(node.name) || node.models.has(model);
      const nodes = entry === undefined ? holdersOf(view, model) : view.nodes.filter(mayBe);
      return nodes.filter((node) => hasOrFits(view, node, model)).map(({ name }) => name);
    }
    const told = needOf(model, entry, undefined);
    const needMb = told.vramMb > 0 ? told.vramMb : (sizeElsewhere(view, model) ?? 0);
    const { most, loose } = this.#roomsFor(entry);
    const names: string[] = [];
    for (const [at, node] of view.nodes.entries()) {
      if (node.models.has(model)) {
        if (hasOrFits(view, node, model)) names.push(node.name);
        continue;
      }
      const room = most[at] ?? -1;
      const isOpen = room >= 0 && needMb <= room;
      const mayMove = !isOpen && needMb <= (loose[at] ?? -1);
      if (isOpen || (mayMove && hasOrFits(view, node, model))) names.push(node.name);
    }
    return names;
  }

  #roomsFor(entry: CatalogueEntry): Rooms {
    const { harness, minDevices, minDeviceVramMb, residencyPriority } = entry;
    const key = `${harness} ${minDevices} ${minDeviceVramMb} ${residencyPriority}`;
    const known = this.#rooms.get(key);
    if (known !== undefined) return known;
    const size = this.#view.nodes.length;
    const rooms = { most: new Float64Array(size).fill(-1), loose: new Float64Array(size).fill(-1) };
    this.#rooms.set(key, rooms);
    const need = needOf('', entry, undefined);
    for (const [at, node] of this.#view.nodes.entries()) {
      if (refusalOf(node, entry.id, entry, undefined) !== null) continue;
      for (const part of partsByKind(node)) {
        const { most, free } = roomFor(this.#view, part, need);
        rooms.most[at] = Math.max(rooms.most[at] ?? -1, most);
        if (part.devices.length > 1) rooms.loose[at] = Math.max(rooms.loose[at] ?? -1, free);
      }
    }
    return rooms;
  }
}

/** Nodes that have it in any state, by name. */
export function holdersOf(view: FleetView, model: string): readonly NodeView[] {
  const { index } = view;
  if (index === undefined) return view.nodes.filter((node) => node.models.has(model));
  const slots = [...index.presentSlots(model)].sort((a, b) => a - b);
  return slots.flatMap((slot) => index.nodes[slot] ?? []);
}

/** A load that failed a short while ago says nothing here: it holds evictions back for minutes at most. */
function hasOrFits(view: FleetView, listed: NodeView, model: string): boolean {
  if (listed.models.get(model)?.status === 'loaded') return true;
  const node = listed.failedLoads?.has(model) === true ? { ...listed, failedLoads: none } : listed;
  // moves can only turn a no into a yes, and their search is dear
  return (
    !('reason' in considerNode(view, node, model, { mayMove: false })) ||
    !('reason' in considerNode(view, node, model))
  );
}
