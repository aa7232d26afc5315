/**
 * One file from a URL to a path: resumable, checksummed, cancellable.
 *
 * The bytes go to `<path>.incomplete`, which takes its final name only when size and SHA-256 are right, so a
 * file that has its name is whole. A cut connection resumes with Range; a server that ignores Range is
 * started over. Five attempts in a row without a new byte end it.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';

export interface Download {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly path: string;
  readonly bytes: number;
  /** Hex; null = only the size is checked. */
  readonly sha256: string | null;
  /** For messages: `org/name/file.gguf`. */
  readonly label: string;
  /** Bytes on disk, whenever that grew. */
  readonly onProgress: (bytesDone: number) => void;
}

export interface DownloadDeps {
  readonly fetch: typeof fetch;
  readonly clock: Clock;
}

const fruitlessMax = 5;

export async function downloadFile(job: Download, deps: DownloadDeps, signal: AbortSignal): Promise<void> {
  if ((await sizeOf(job.path)) === job.bytes) return job.onProgress(job.bytes);
  await mkdir(dirname(job.path), { recursive: true }).catch((error) => throwDisk(job, error));
  const partial = `${job.path}.incomplete`;
  let fruitless = 0;
  for (;;) {
    const before = (await sizeOf(partial)) ?? 0;
    try {
      await fetchRest(job, partial, before, deps, signal);
      break;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof AppError) throw error;
      refuseDiskError(job, error);
      fruitless = ((await sizeOf(partial)) ?? 0) > before ? 0 : fruitless + 1;
      if (fruitless >= fruitlessMax) throw fetchFailed(job.label, 'the connection keeps breaking', error);
      await deps.clock.sleep(Math.min(500 * 2 ** fruitless, 8000), signal);
    }
  }
  await verify(job, partial, signal);
  await rename(partial, job.path).catch((error) => throwDisk(job, error));
}

async function fetchRest(
  job: Download,
  partial: string,
  have: number,
  deps: DownloadDeps,
  signal: AbortSignal,
): Promise<void> {
  if (have === job.bytes) return;
  if (have > job.bytes) {
    await rm(partial, { force: true });
    have = 0;
  }
  const range: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
  // Compressed on the way, the bytes on disk would not be the bytes that Range counts.
  const headers = { ...job.headers, 'accept-encoding': 'identity', ...range };
  const response = await deps.fetch(job.url, { headers, signal });
  if (response.status === 416) {
    await response.body?.cancel();
    await rm(partial, { force: true });
    throw new Error('the server refused the range; starting over');
  }
  await checkDownloadStatus(job.label, response);
  const resumes = response.status === 206 && startOf(response) === have;
  if (response.status === 206 && !resumes) throw new Error('the server sent another range than asked for');
  if (response.body === null) throw new Error('the server sent no body');
  let done = resumes ? have : 0;
  const file = await open(partial, resumes ? 'a' : 'w');
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      done += chunk.length;
      if (done > job.bytes) throw fetchFailed(job.label, `the server sent more than ${job.bytes} bytes`);
      await file.writeFile(chunk);
      job.onProgress(done);
    }
  } finally {
    await file.close();
  }
  if (done < job.bytes) throw new Error(`connection ended at ${done} of ${job.bytes} bytes`);
}

async function verify(job: Download, partial: string, signal: AbortSignal): Promise<void> {
  if (job.sha256 === null) return;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(partial, { highWaterMark: 1 << 20, signal })) {
    hash.update(chunk as Buffer);
  }
  const actual = hash.digest('hex');
  if (actual === job.sha256) return;
  await rm(partial, { force: true });
  throw fetchFailed(job.label, `its SHA-256 is ${actual}, expected ${job.sha256}; it was deleted, try again`);
}

/** 4xx are final (`repo_fetch_failed`), the rest of what is not 2xx is worth another attempt. */
async function checkDownloadStatus(label: string, response: Response): Promise<void> {
  if (response.ok) return;
  await response.body?.cancel();
  if (response.status >= 500 || response.status === 429 || response.status === 408) {
    throw new Error(`the server answered ${response.status}`);
  }
  throw fetchFailed(label, `the server answered ${response.status}`);
}

export function fetchFailed(label: string, why: string, cause?: unknown): AppError {
  return new AppError('repo_fetch_failed', `could not fetch ${label}: ${why}`, {
    cause,
    extras: { cause: why },
  });
}

function startOf(response: Response): number | null {
  const match = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
  return match === null ? null : Number(match[1]);
}

async function sizeOf(path: string): Promise<number | null> {
  return stat(path).then(
    (found) => found.size,
    () => null,
  );
}

/** `error` as what it means for the cache's disk, or as it is. */
export function throwDisk(job: Pick<Download, 'label' | 'bytes' | 'path'>, error: unknown): never {
  refuseDiskError(job, error);
  throw error;
}

/** Throws when `error` is about the disk; trying again would not mend that. */
function refuseDiskError(job: Pick<Download, 'label' | 'bytes' | 'path'>, error: unknown): void {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const mb = Math.ceil(job.bytes / (1024 * 1024));
    throw new AppError('disk_full', `no space left for ${job.label} (${mb} MiB); free some and load again`, {
      cause: error,
    });
  }
  if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM') {
    throw new AppError('load_failed', `may not write ${job.label} into the model cache; check its owner`, {
      cause: error,
      detail: job.path,
    });
  }
}
