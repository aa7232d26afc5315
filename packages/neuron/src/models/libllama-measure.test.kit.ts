/** libllama's own account of what a load takes, for the tests of the estimate. Not part of the product. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { NoAllocJob } from './no-alloc-main.test.kit.ts';

/** MiB. */
export interface Measured {
  readonly weightsMb: number;
  readonly cacheMb: number;
  readonly computeMb: number;
}

/** In the order of the jobs. */
export function measureWithLibllama(jobs: readonly NoAllocJob[]): readonly Measured[] {
  const main = fileURLToPath(new URL('./no-alloc-main.test.kit.js', import.meta.url));
  const { stderr, status, signal } = spawnSync(process.execPath, [main, JSON.stringify(jobs)], {
    encoding: 'utf8',
    maxBuffer: 1024 ** 3,
  });
  const logs = stderr.split('\n@end\n').slice(0, -1);
  if (status !== 0 || logs.length !== jobs.length) {
    throw new Error(`${logs.length} of ${jobs.length} measured, ${status ?? signal}: ${stderr.slice(-2000)}`);
  }
  return logs.map((log) => ({
    weightsMb: Number(/^@size (\d+)$/m.exec(log)?.[1]) / 1024 ** 2,
    // "size = 225.00 MiB ( 2048 cells, ...": keys and values, and recurrent state.
    cacheMb: sumOf(log, /size = +([\d.]+) MiB \( *\d+ cells/g),
    computeMb: sumOf(log, /(?:compute|output) buffer size = +([\d.]+) MiB/g),
  }));
}

function sumOf(log: string, pattern: RegExp): number {
  return [...log.matchAll(pattern)].reduce((sum, [, number]) => sum + Number(number), 0);
}
