/**
 * How long a load takes: as that node measured it with that model, else from the size and the node's MiB per
 * second, else the mean of the nodes that measured it, else from the size. What is not on the node's disk is
 * fetched first.
 */
import type { FleetView, NodeView } from './fleet-view.ts';

const loadBaseMs = 1500;
const loadMbSPrior = 800;
const fetchMbSPrior = 50;
const sizeMbPrior = 4096;

/** Of that model there, ms. `sizeMb`: MiB; null = unknown. */
export function loadMsOf(
  view: FleetView,
  node: NodeView,
  model: string,
  sizeMb: number | null = sizeMbOf(view, node, model),
): number {
  const { rates } = view;
  const own = rates?.of(node.name, model)?.loadMs ?? null;
  if (own !== null) return own;
  const mbS = rates?.loadMbS(node.name) ?? null;
  const elsewhereMs = rates?.ofModel(model)?.loadMs ?? null;
  return loadPriorMs(sizeMb, mbS, elsewhereMs, view.isOnEveryDisk === true || node.models.has(model));
}

/** `mbS`: the node's own rate; `elsewhereMs`: the mean of the nodes that loaded it. */
export function loadPriorMs(
  sizeMb: number | null,
  mbS: number | null,
  elsewhereMs: number | null,
  onDisk: boolean,
): number {
  const size = sizeMb ?? sizeMbPrior;
  const local =
    mbS === null && elsewhereMs !== null ? elsewhereMs : loadBaseMs + (size * 1000) / (mbS ?? loadMbSPrior);
  return onDisk ? local : local + (size * 1000) / fetchMbSPrior;
}

function sizeMbOf(view: FleetView, node: NodeView, model: string): number | null {
  return view.catalogue.get(model)?.vramMb ?? node.models.get(model)?.vramMb ?? null;
}
