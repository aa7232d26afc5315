/** What a request hears that no node can take. */
import type { ErrorCode } from 'cortex-core/wire/errors';
import type { FleetView } from './fleet-view.ts';
import type { Rejection } from './route.ts';

export function reject(
  model: string,
  code: ErrorCode,
  message: string,
  retryAfterSecs: number | null,
): Rejection {
  return { kind: 'reject', model, code, message, retryAfterSecs, nodes: [] };
}

export function rejectUnhealthy(view: FleetView, model: string): Rejection {
  const kept = view.nodes.flatMap(({ name, refusal }) => (refusal == null ? [] : [`${name} ${refusal}`]));
  const why =
    kept.length === 0 ? '; check that a neuron runs and answers' : `: ${kept.slice(0, 8).join(', ')}`;
  return reject(model, 'no_healthy_nodes', `no healthy nodes available${why}`, 5);
}

/** `requested`: as the client spelled it. Not missing is what a node may still tell that it has. */
export function rejectUnknown(view: FleetView, requested: string, model: string): Rejection {
  const awaited = view.nodes.find((node) => node.isAwaited)?.name;
  if (awaited !== undefined) {
    const why = `${awaited} has not answered yet and may have it; try again`;
    return reject(model, 'node_unhealthy', `model "${requested}" is on no node that answers; ${why}`, 3);
  }
  const message = `model "${requested}" not found on any node and not in catalogue; see GET /v1/models`;
  return reject(model, 'model_not_found', message, null);
}
