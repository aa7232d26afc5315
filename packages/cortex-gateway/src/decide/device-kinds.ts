/**
 * A node as parts whose devices stand in for each other: a model of a GPU is not placed on the CPU because
 * there is more memory free.
 */
import type { NodeView } from './fleet-view.ts';

/** GPUs first, the kind with the most memory before others; the CPU last. A node of one kind is itself. */
export function partsByKind(node: NodeView): readonly NodeView[] {
  const kinds = [...new Set(node.devices.map((device) => device.kind))];
  if (kinds.length < 2) return [node];
  const parts = kinds.map((kind) => node.devices.filter((device) => device.kind === kind));
  const sizeOf = (part: NodeView['devices']): number =>
    part[0]?.kind === 'cpu' ? -1 : part.reduce((total, device) => total + device.totalMb, 0);
  return parts.sort((a, b) => sizeOf(b) - sizeOf(a)).map((devices) => ({ ...node, devices }));
}
