/**
 * NEURON_FAULT at work: makes an owner abort, hang, compute garbage, load slowly or find no memory, so that
 * what follows can be seen for real. docs/faults.md.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { EngineFaults } from '../../engine/engine-faults.ts';
import type { Fault } from '../jobs.ts';

/** A slow load looks at its cancel word this often. */
const sliceMs = 20;

/** Undefined when nothing is planted in this life of the device's owner. */
export function plantFaults(faults: readonly Fault[], life: number): EngineFaults | undefined {
  const active = faults.filter(({ lives }) => lives === null || life <= lives);
  if (active.length === 0) return undefined;
  const steps = new Map(active.map((fault) => [fault, 0]));
  const of = (modelId: string): readonly Fault[] =>
    active.filter((fault) => fault.modelId === null || fault.modelId === modelId);
  return {
    onLoad(modelId, onProgress) {
      for (const fault of of(modelId)) {
        if (fault.kind === 'slow_load') waitSlowly(modelId, fault.ms, onProgress);
        if (fault.kind === 'load_oom') throw outOfMemory(modelId);
        if (fault.kind === 'load_abort') process.abort();
      }
    },
    onStep(modelId) {
      let isNan = false;
      for (const fault of of(modelId)) {
        const step = (steps.get(fault) ?? 0) + 1;
        steps.set(fault, step);
        if (step !== fault.step) continue;
        if (fault.kind === 'abort') process.abort();
        if (fault.kind === 'hang') block(Number.POSITIVE_INFINITY);
        isNan ||= fault.kind === 'nan';
      }
      return isNan ? 'nan' : null;
    },
  };
}

function waitSlowly(modelId: string, ms: number, onProgress: (fraction: number) => boolean): void {
  const endMs = performance.now() + ms;
  for (let leftMs = ms; leftMs > 0; leftMs = endMs - performance.now()) {
    if (!onProgress(0)) throw new AppError('load_cancelled', `the load of "${modelId}" was cancelled`);
    block(Math.min(sliceMs, leftMs));
  }
}

/** As a native call blocks: no timer, message or signal handler runs meanwhile. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function outOfMemory(modelId: string): AppError {
  return new AppError(
    'insufficient_vram',
    `model "${modelId}": the device could not give the memory for its weights (planted by NEURON_FAULT)`,
  );
}
