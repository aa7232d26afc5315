/** Where a command reads and writes: the process's streams, or a test's. */
import { fileURLToPath } from 'node:url';
import type { ProgressOutput } from './progress.ts';
import { createStyle, type Style, wantsColor } from './style.ts';

export interface Terminal {
  readonly stdout: ProgressOutput;
  readonly stderr: ProgressOutput;
  readonly stdin: AsyncIterable<unknown> & { readonly isTTY?: boolean | undefined };
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** For stdout. */
  readonly style: Style;
  /** For stderr. */
  readonly errorStyle: Style;
}

export function createTerminal(): Terminal {
  const { stdout, stderr, stdin, env } = process;
  return {
    stdout,
    stderr,
    stdin,
    env,
    cwd: process.cwd(),
    style: createStyle(wantsColor(stdout, env)),
    errorStyle: createStyle(wantsColor(stderr, env)),
  };
}

/** The folder of the built files, from which the other programs and the shipped model are found. */
export const distDir = fileURLToPath(new URL('.', import.meta.url));
