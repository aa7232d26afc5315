/** GGUF files on this machine: the one that ships, those in ./models, and those named with --model. */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { CliError } from './cli-error.ts';

export interface NamedModel {
  /** What clients ask for. */
  readonly id: string;
  /** The directory its file is in; null for an id that the neuron resolves by itself. */
  readonly dir: string | null;
}

export const SHIPPED_MODEL = 'cortex-tiny';

/** From `from` upwards: the directory of the model that ships; null in an installation without it. */
export function findShippedModelDir(from: string): string | null {
  for (let dir = resolve(from); ; dir = dirname(dir)) {
    const candidate = join(dir, 'models', SHIPPED_MODEL);
    if (existsSync(join(candidate, `${SHIPPED_MODEL}.gguf`))) return candidate;
    if (dir === dirname(dir)) return null;
  }
}

/** `./models` and those of its folders that hold a GGUF. */
export function findLocalModelDirs(cwd: string): readonly string[] {
  const root = join(cwd, 'models');
  if (statSync(root, { throwIfNoEntry: false })?.isDirectory() !== true) return [];
  const folders = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [root, ...folders.map((entry) => join(root, entry.name)).sort()].filter(holdsGguf);
}

/**
 * What --model names: a GGUF file is checked here and goes by its file name; anything else is an id for the
 * neuron. Throws one line that says what is wrong with the file.
 */
export function parseModelArgument(argument: string, cwd: string): NamedModel {
  const looksLikeFile = /\.gguf$/i.test(argument) || /^(\.{0,2}[/\\]|~)/.test(argument);
  const file = resolve(cwd, argument);
  const stat = statSync(file, { throwIfNoEntry: false });
  if (stat === undefined) {
    if (!looksLikeFile) return { id: argument, dir: null };
    throw new CliError(`model file ${argument} does not exist; give the path of a .gguf file, or a model id`);
  }
  if (stat.isDirectory()) {
    if (!looksLikeFile) return { id: argument, dir: null };
    throw new CliError(`${argument} is a directory; give the path of one .gguf file in it`);
  }
  checkGguf(file, argument, stat.size);
  if (!/\.gguf$/i.test(file)) {
    throw new CliError(`model file ${argument} has no .gguf at the end of its name; rename it`);
  }
  return { id: basename(file).replace(/\.gguf$/i, ''), dir: dirname(file) };
}

function checkGguf(file: string, shown: string, size: number): void {
  if (size === 0) throw new CliError(`model file ${shown} is empty; download it again`);
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (cause) {
    throw new CliError(`model file ${shown} cannot be read (${(cause as NodeJS.ErrnoException).code})`, 1, {
      cause,
    });
  }
  const magic = Buffer.alloc(4);
  readSync(fd, magic, 0, 4, 0);
  closeSync(fd);
  if (magic.toString('latin1') === 'GGUF') return;
  throw new CliError(
    `model file ${shown} is not a GGUF file; download it again, or convert it to GGUF first`,
  );
}

function holdsGguf(dir: string): boolean {
  try {
    return readdirSync(dir).some((name) => /\.gguf$/i.test(name));
  } catch {
    return false;
  }
}
