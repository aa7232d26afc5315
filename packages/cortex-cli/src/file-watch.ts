/**
 * Tells when one of a few files changed.
 *
 * They are looked at once a second and not watched by the system: an editor replaces a file, a container's
 * file is a link to a folder that is replaced, a network share tells nothing, and looking works for all.
 * A change counts when the file looked the same twice, so that one that is still being written is not read.
 */
import { type Stats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Clock } from 'cortex-core/daemon/clock';

export interface FileWatchOptions {
  readonly clock: Clock;
  /** Asked at each look: a reload may name other files. */
  readonly paths: () => readonly string[];
  /** Asked at each look; what changes meanwhile is not told. */
  readonly isOn: () => boolean;
  readonly onChange: () => void;
  /** `signFiles` of when they were read: what changed since is told. */
  readonly since: string;
}

const EVERY_MS = 1000;

export class FileWatch {
  readonly #options: FileWatchOptions;
  #timer: { cancel(): void } | null = null;
  #isClosed = false;
  #known: string;
  #seen: string | null = null;

  constructor(options: FileWatchOptions) {
    this.#options = options;
    this.#known = options.since;
    this.#arm(0);
  }

  /** Idempotent. */
  close(): void {
    this.#isClosed = true;
    this.#timer?.cancel();
  }

  #arm(ms: number): void {
    this.#timer = this.#options.clock.setTimer(ms, () => void this.#look());
  }

  async #look(): Promise<void> {
    const signs = await Promise.all(this.#options.paths().map(readSign));
    if (this.#isClosed) return;
    const now = signs.join('\n');
    const isSettled = now === this.#seen;
    this.#seen = now;
    if (!this.#options.isOn()) this.#known = now;
    else if (isSettled && now !== this.#known) {
      this.#known = now;
      this.#options.onChange();
    }
    this.#arm(EVERY_MS);
  }
}

/** What the files look like now. */
export function signFiles(paths: readonly string[]): string {
  return paths.map((path) => signOf(path, lookAt(path))).join('\n');
}

function lookAt(path: string): Stats | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

async function readSign(path: string): Promise<string> {
  return signOf(path, await stat(path).catch(() => null));
}

/** What changes when the file does; a file that is not there is one too. */
function signOf(path: string, found: Stats | null): string {
  return found === null ? `${path} none` : `${path} ${found.mtimeMs} ${found.size} ${found.ino}`;
}
