/**
 * Keeps measured rates over a restart: a gateway that starts knows at once which node is fast. The file is
 * written whole beside itself and renamed; one that cannot be read is left out with a warning, for it costs
 * accuracy only. Limits: its size; one write at a time, at most every `everyMs`.
 */
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import { z } from 'zod';
import type { RateBook } from '../decide/rate-book.ts';

const fileBytesMax = 16 * 1024 * 1024;
const everyMs = 30_000;

const rate = z.number().positive().max(1e12).optional();
const name = z.string().min(1).max(512);
const fileSchema = z.object({
  version: z.literal(1),
  rates: z
    .array(
      z.object({
        node: name,
        model: name,
        load_ms: rate,
        prefill_tok_s: rate,
        decode_tok_s: rate,
        service_ms: rate,
      }),
    )
    .max(100_000),
  load_mb_s: z.record(name, z.number().positive().max(1e9)),
});

export interface RatesFileOptions {
  /** null keeps them for the life of the process only. */
  readonly file: string | null;
  readonly rates: RateBook;
  readonly clock: Clock;
  readonly log: Log;
}

export class RatesFile {
  readonly #options: RatesFileOptions;
  readonly #beside: string;
  #written: number;
  #timer: { cancel(): void } | null = null;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: RatesFileOptions) {
    this.#options = options;
    this.#written = options.rates.version;
    // under a name of this process: a second gateway with the same directory must not mix in
    this.#beside = `${options.file}.${process.pid}`;
  }

  /** Reads what an earlier process left, and from then on writes what changes. Never rejects. */
  async open(): Promise<void> {
    const { file, rates, log } = this.#options;
    if (file === null) return;
    try {
      if ((await stat(file)).size > fileBytesMax) throw new Error('it is larger than 16 MiB');
      const kept = fileSchema.parse(JSON.parse(await readFile(file, 'utf8')));
      rates.restore({
        loadMbS: kept.load_mb_s,
        rates: kept.rates.map((row) => ({
          node: row.node,
          model: row.model,
          loadMs: row.load_ms ?? null,
          prefillTokS: row.prefill_tok_s ?? null,
          decodeTokS: row.decode_tok_s ?? null,
          serviceMs: row.service_ms ?? null,
        })),
      });
      this.#written = rates.version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        const cause = error instanceof Error ? error.message.slice(0, 200) : String(error);
        log.warn('measured rates are forgotten: their file cannot be read', { file, cause });
      }
    }
    this.#arm();
  }

  /** Writes what is not written yet. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    await this.#write();
  }

  #arm(): void {
    this.#timer = this.#options.clock.setTimer(everyMs, () => {
      this.#arm();
      void this.#write();
    });
  }

  #write(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#writeNow());
    return this.#writing;
  }

  async #writeNow(): Promise<void> {
    const { file, rates, log } = this.#options;
    const { version } = rates;
    if (file === null || version === this.#written) return;
    try {
      await mkdir(dirname(file), { recursive: true });
      await writeFile(this.#beside, textOf(rates), { mode: 0o600 });
      await rename(this.#beside, file);
      this.#written = version;
    } catch (error) {
      log.warn('measured rates cannot be kept', { file, cause: String(error) });
      await rm(this.#beside, { force: true }).catch(() => {});
    }
  }
}

function textOf(book: RateBook): string {
  const { rates, loadMbS } = book.toRows();
  const told = (value: number | null | undefined): number | undefined => {
    return value === null || value === undefined ? undefined : Number(value.toPrecision(6));
  };
  return JSON.stringify({
    version: 1,
    rates: rates.map((row) => ({
      node: row.node,
      model: row.model,
      load_ms: told(row.loadMs),
      prefill_tok_s: told(row.prefillTokS),
      decode_tok_s: told(row.decodeTokS),
      service_ms: told(row.serviceMs),
    })),
    load_mb_s: loadMbS,
  });
}
