import { Engine } from '../../engine/engine.ts';
import type { OwnerOptions, ToOwner } from '../jobs.ts';
import type { EngineLike } from './engine-like.ts';
import { plantFaults } from './plant-faults.ts';

/** The real engine, opened on the thread that calls. Errors: `load_failed` with what to install. */
export function openEngine({ options, life }: ToOwner & { kind: 'Start' }): EngineLike {
  return new Engine({
    faults: plantFaults(options.faults, life),
    nativeLog: options.nativeLog,
    ...(options.libraryDir === null ? {} : { libraryDir: options.libraryDir }),
    ...(needsPlainLibrary(options) ? { variant: 'cpu' } : {}),
  });
}

/**
 * A GPU build opens a context on every GPU it sees, also for models on the CPU. An own build is what it is,
 * and Apple's package has no CPU-only sibling.
 */
function needsPlainLibrary({ gpu, libraryDir }: OwnerOptions): boolean {
  const isAppleSilicon = process.platform === 'darwin' && process.arch === 'arm64';
  return !gpu && libraryDir === null && !isAppleSilicon;
}
