import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

/**
 * Cores that compute threads can use without sharing one: hyper-threads slow ggml's spinning teams down.
 * Linux tells which CPUs share a core; elsewhere, and in containers that hide it, every CPU counts.
 */
export function physicalCoreCount(): number {
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
