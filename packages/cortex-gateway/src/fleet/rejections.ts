/** A decision's rejection as the error a client gets. */
import { AppError } from 'cortex-core/wire/errors';
import type { Rejection } from '../decide/route.ts';

export function toError(rejection: Rejection): AppError {
  return new AppError(rejection.code, rejection.message, {
    ...(rejection.retryAfterSecs === null ? {} : { retryAfterSecs: rejection.retryAfterSecs }),
    ...(rejection.code === 'model_not_found' ? { param: 'model' } : {}),
    ...(rejection.nodes.length === 0
      ? {}
      : { extras: { nodes: rejection.nodes.slice(0, 32).map(({ node, reason }) => ({ node, reason })) } }),
  });
}

export function shuttingDown(): AppError {
  return new AppError('shutting_down', 'the gateway is shutting down; try again', { retryAfterSecs: 5 });
}

export function noNode(name: string): AppError {
  return new AppError('not_found', `there is no node "${name}" in the fleet; see cortex status`);
}

/** A load that cannot run there any more; its waiters try elsewhere. */
export function outOfService(
  node: string,
  why: 'cordoned' | 'drained' | 'removed' | 'moved',
  model: string,
): AppError {
  const message = `model "${model}" cannot be loaded on ${node}, which was ${why}; try again`;
  return new AppError('node_unhealthy', message, { retryAfterSecs: 3 });
}

/** Names a job: one per node and model. */
export function keyOf(node: string, model: string): string {
  return `${node}\n${model}`;
}

/** Those in the way still answer requests, and are not cut. */
export function doesNotDrain(model: string, node: string, busy: readonly string[]): AppError {
  const who = busy.map((each) => `"${each}"`).join(', ');
  const message =
    `no room for model "${model}" on ${node}: ${who} still answers, or is used by another gateway ` +
    'and was not evicted; try again later';
  return new AppError('insufficient_vram', message, { retryAfterSecs: 10 });
}

/** A neuron that says "loaded" and then has not. */
export function doesNotStay(model: string, node: string): AppError {
  const message = `model "${model}" does not stay loaded; see the log of ${node}`;
  return new AppError('cold_load_failed', message, { retryAfterSecs: 10 });
}
