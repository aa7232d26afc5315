/** Watches a load through the node's health: keeps progress and rate, and gives up at the deadline. */
import { AppError } from 'cortex-core/wire/errors';
import { healthSchema } from 'cortex-core/wire/neuron';
import type { LifecycleDeps } from './lifecycle-deps.ts';
import { LoadDeadline } from './load-deadline.ts';
import type { LoadJob } from './load-job.ts';
import type { NodeState } from './node-state.ts';

const progressEveryMs = 1000;
const healthTimeoutMs = 5000;
const bytesPerMb = 1024 * 1024;

/** Ends when `stop` does; aborts it when the load has had its time. Never rejects. */
export async function watchLoad(
  node: NodeState,
  job: LoadJob,
  deps: LifecycleDeps,
  stop: AbortController,
): Promise<void> {
  const { clock } = deps;
  const deadline = new LoadDeadline({
    startedMs: clock.monotonicMs(),
    baseMs: deps.loadTimeoutMs,
    bytes: bytesOf(node, job, deps),
    bytesPerSec: node.loadRate.bytesPerSec,
  });
  let lastMs = clock.monotonicMs();
  let last = node.progressOf(job.model);
  while (!stop.signal.aborted) {
    try {
      await clock.sleep(
        Math.max(1, Math.min(progressEveryMs, deadline.atMs - clock.monotonicMs())),
        stop.signal,
      );
      const health = await node.client.getJson('/health', healthTimeoutMs, stop.signal);
      node.ingestHealth(healthSchema.parse(health));
    } catch {
      // a load may keep a neuron too busy to answer: the deadline below decides
    }
    const now = clock.monotonicMs();
    const step = node.progressOf(job.model);
    if (step !== null && last !== null && step.phase === 'loading' && last.phase === 'loading') {
      node.loadRate.observe(step.bytes_done - last.bytes_done, now - lastMs);
    }
    last = step;
    lastMs = now;
    deadline.note(step, now);
    if (now < deadline.atMs || stop.signal.aborted) continue;
    stop.abort(tooLong(node.name, job.model, now - deadline.sinceMs));
  }
}

/** What the neuron says, else what the model is known to take. */
function bytesOf(node: NodeState, job: LoadJob, deps: LifecycleDeps): number {
  const told = node.progressOf(job.model)?.bytes_total ?? 0;
  if (told > 0) return told;
  const entry = deps.view().catalogue.get(job.model);
  return (entry?.vramMb ?? node.toView().models.get(job.model)?.vramMb ?? 0) * bytesPerMb;
}

function tooLong(node: string, model: string, stillMs: number): AppError {
  const secs = Math.round(stillMs / 1000);
  const message = `loading "${model}" on ${node} made no progress for ${secs} s and was stopped`;
  return new AppError('cold_load_failed', message, { retryAfterSecs: 30 });
}
