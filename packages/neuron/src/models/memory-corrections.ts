/**
 * What loads really took, so that the next estimate of the same kind is better: also at another context, also
 * after a restart.
 *
 * Problem: the header does not say everything (backends' own buffers, a cache of an architecture that is not
 * known here), and a figure for exactly one context helps only who asks for exactly that one again.
 * Design: per kind of load (file, shape without context, device) the last few pairs of estimate and actual.
 * At a context that was seen the actual figure stands. At another, the nearest pair gives a difference and a
 * factor, of which the larger result counts: what was missing may be a fixed amount or grow with the context.
 * Limits: 256 kinds, 8 contexts each, the oldest leave. The file is written whole beside itself and
 * renamed; one that cannot be read is left out with a warning, for it costs accuracy only.
 */
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Log } from 'cortex-core/daemon/log';
import { z } from 'zod';

const kindsMax = 256;
const contextsMax = 8;
const keyLengthMax = 8192;
const fileBytesMax = 4 * 1024 * 1024;

const mib = z.number().positive().max(1e9);
const pairSchema = z
  .object({ context: z.int().positive(), estimate_mb: mib, actual_mb: mib })
  .refine((pair) => isPlausible(pair.actual_mb, pair.estimate_mb), 'no load takes so much, or so little');
const fileSchema = z.object({
  version: z.literal(1),
  kinds: z
    .array(z.object({ key: z.string().max(keyLengthMax), seen: z.array(pairSchema).max(contextsMax) }))
    .max(kindsMax),
});

type Pair = z.output<typeof pairSchema>;

export class MemoryCorrections {
  readonly #file: string | null;
  readonly #log: Log;
  readonly #kinds = new Map<string, readonly Pair[]>();
  #writing: Promise<void> = Promise.resolve();

  /** `file`: null keeps them for the life of the process only. */
  constructor(file: string | null, log: Log) {
    this.#file = file;
    this.#log = log;
  }

  /** Reads what an earlier process left. Never rejects. */
  async read(): Promise<void> {
    if (this.#file === null) return;
    try {
      if ((await stat(this.#file)).size > fileBytesMax) throw new Error('it is larger than 4 MiB');
      const text = await readFile(this.#file, 'utf8');
      for (const { key, seen } of fileSchema.parse(JSON.parse(text)).kinds) this.#kinds.set(key, seen);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      const cause = error instanceof Error ? error.message.slice(0, 200) : String(error);
      this.#log.warn('what earlier loads took is forgotten: its file cannot be read', {
        file: this.#file,
        cause,
      });
    }
  }

  /** MiB that a load will take whose header says `estimateMb`. */
  predict(key: string, context: number, estimateMb: number): number {
    const seen = this.#kinds.get(key) ?? [];
    const same = seen.find((pair) => pair.context === context);
    // The estimate itself may have changed since, with the program or the file.
    if (same !== undefined && isClose(same.estimate_mb, estimateMb)) return same.actual_mb;
    const distance = (pair: Pair): number => Math.abs(Math.log(pair.context / context));
    const [nearest] = [...seen].sort((a, b) => distance(a) - distance(b));
    if (nearest === undefined) return estimateMb;
    const { estimate_mb: estimated, actual_mb: actual } = nearest;
    return Math.max(estimateMb + actual - estimated, (estimateMb * actual) / estimated);
  }

  remember(key: string, context: number, estimateMb: number, actualMb: number): void {
    if (!(estimateMb > 0 && actualMb > 0) || key.length > keyLengthMax) return;
    const others = (this.#kinds.get(key) ?? []).filter((pair) => pair.context !== context);
    const pair = { context, estimate_mb: estimateMb, actual_mb: actualMb };
    this.#kinds.delete(key);
    this.#kinds.set(key, [...others.slice(1 - contextsMax), pair]);
    const [oldest] = this.#kinds.keys();
    if (this.#kinds.size > kindsMax && oldest !== undefined) this.#kinds.delete(oldest);
    this.#writing = this.#writing.then(() => this.#write());
  }

  /** Resolves when everything remembered so far is in the file. Never rejects. */
  written(): Promise<void> {
    return this.#writing;
  }

  async #write(): Promise<void> {
    const file = this.#file;
    if (file === null) return;
    const kinds = [...this.#kinds].map(([key, seen]) => ({ key, seen }));
    try {
      await mkdir(dirname(file), { recursive: true });
      // Beside it, under a name of this process: a second neuron with the same directory must not mix in.
      const beside = `${file}.${process.pid}`;
      await writeFile(beside, JSON.stringify({ version: 1, kinds }), { mode: 0o600 });
      await rename(beside, file);
    } catch (error) {
      this.#log.warn('what loads took cannot be kept', { file, cause: String(error) });
    }
  }
}

/** Beyond these another program's memory was measured, or nothing. */
export function isPlausible(actualMb: number, estimateMb: number): boolean {
  return actualMb > 0 && actualMb <= 2 * estimateMb + 512 && actualMb >= estimateMb / 4;
}

function isClose(one: number, other: number): boolean {
  return Math.abs(one - other) <= 1 + 0.001 * other;
}
