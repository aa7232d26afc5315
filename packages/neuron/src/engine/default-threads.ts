import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

/**
 * Below this a step is not shared. cortex-tiny (3 M parameters, two quiet cores): one stream is as fast
 * with one thread as with two, eight reach 0.65; but with busy neighbours two threads spin at their
 * meetings and fall to a hundredth, one does not.
 */
const sharedParametersMin = 30_000_000;

/** Compute threads of a model of that many parameters when the configuration names no number. */
export function defaultThreads(parameterCount: number): number {
  return parameterCount < sharedParametersMin ? 1 : physicalCoreCount();
}

/**
 * Cores that compute threads can use without sharing one: hyper-threads slow ggml's spinning teams down.
 * Linux tells which CPUs share a core; elsewhere, and in containers that hide it, every CPU counts.
 */
function physicalCoreCount(): number {
  return Math.max(1, Math.min(availableParallelism(), coresByTopology() ?? cpus().length));
}

function coresByTopology(): number | null {
  if (process.platform !== 'linux') return null;
  const cores = new Set<string>();
  for (let cpu = 0; cpu < cpus().length; cpu++) {
    try {
      const path = `/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`;
      cores.add(readFileSync(path, 'utf8').trim());
    } catch {
      return null;
    }
  }
  return cores.size === 0 ? null : cores.size;
}
