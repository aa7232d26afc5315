import { mkdirSync, openSync, renameSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';

const LOG_BYTES_MAX = 10 * 1024 * 1024;

/** `$CORTEX_HOME`, else `$XDG_STATE_HOME/cortex`, else `~/.local/state/cortex` (XDG base directories 0.8). */
export function stateDir(env: Readonly<Record<string, string | undefined>>, home = homedir()): string {
  if (env.CORTEX_HOME !== undefined && env.CORTEX_HOME !== '') return resolve(env.CORTEX_HOME);
  // A relative path is invalid there, says the specification.
  const given = env.XDG_STATE_HOME;
  return given !== undefined && isAbsolute(given) ? join(given, 'cortex') : join(home, '.local/state/cortex');
}

/** A descriptor to append to; a log that has grown over the limit is put aside as `.1` first. */
export function openLog(file: string): number {
  mkdirSync(dirname(file), { recursive: true });
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_BYTES_MAX) renameSync(file, `${file}.1`);
  return openSync(file, 'a', 0o600);
}
