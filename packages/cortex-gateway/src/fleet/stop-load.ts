/**
 * Stops one load on its node and nothing else: a loader that nobody waits for must not go on taking memory,
 * and a model that came up a moment before stays.
 */
import { neuronModelsSchema } from 'cortex-core/wire/neuron';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import type { NodeState } from './node-state.ts';

const timeoutMs = 10_000;

/** Resolves when the neuron has stopped it, or cannot be told; then the log says so. */
export async function stopLoad(
  node: NodeState,
  wireId: string,
  { log }: Pick<LifecycleDeps, 'log'>,
): Promise<void> {
  const fields = { node: node.name, model: wireId };
  try {
    const answer = await node.client.postJson('/models/cancel', { model_id: wireId }, timeoutMs);
    if (answer.status === 404) await stopByUnload(node, wireId);
    else if (answer.status > 299) log.warn('could not stop a load', { ...fields, status: answer.status });
  } catch (cause) {
    log.warn('could not stop a load', { ...fields, cause: String(cause) });
  }
}

/** A neuron that has no /models/cancel ends a load when it is told to unload; hence only while it loads. */
async function stopByUnload(node: NodeState, wireId: string): Promise<void> {
  const rows = neuronModelsSchema.parse(await node.client.getJson('/models', timeoutMs));
  if (rows.find((row) => row.id === wireId)?.status !== 'loading') return;
  await node.client.postJson('/models/unload', { model_id: wireId }, timeoutMs);
}
