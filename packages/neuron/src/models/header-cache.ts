import { stat } from 'node:fs/promises';
import { GgufFault, type GgufHeader, readGgufHeader } from './gguf-header.ts';

export type ReadHeader = (file: string) => Promise<GgufHeader>;

interface Known {
  readonly mtimeMs: number;
  readonly size: number;
  readonly header: Promise<GgufHeader>;
}

/**
 * Headers of the files on disk, each read once for as long as its time and size stay. A listing asks for all
 * of them every few seconds, and a header with its vocabulary is megabytes on the disk.
 * Limits: the 256 files that were asked for last.
 */
export class HeaderCache {
  readonly #read: ReadHeader;
  readonly #filesMax: number;
  readonly #known = new Map<string, Known>();

  constructor(read: ReadHeader = readGgufHeader, filesMax = 256) {
    this.#read = read;
    this.#filesMax = filesMax;
  }

  /** Errors: `GgufFault`, and what the file system says. */
  async read(file: string): Promise<GgufHeader> {
    const { mtimeMs, size } = await stat(file);
    const last = this.#known.get(file);
    const isSame = last?.mtimeMs === mtimeMs && last.size === size;
    const known = isSame ? last : { mtimeMs, size, header: this.#read(file) };
    this.#known.delete(file);
    this.#known.set(file, known); // the last one asked for is the last one to leave
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= this.#filesMax) break;
      this.#known.delete(oldest);
    }
    try {
      return await known.header;
    } catch (error) {
      // What is wrong inside stays wrong; a disk or a permission may be mended.
      if (!(error instanceof GgufFault) && this.#known.get(file) === known) this.#known.delete(file);
      throw error;
    }
  }
}
