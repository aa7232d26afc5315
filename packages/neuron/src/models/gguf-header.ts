/**
 * The header of a GGUF file, read with bounds.
 *
 * Problem: the file is foreign input, and libllama aborts the process on some broken ones. And only a few
 * numbers are wanted, while a vocabulary of 250,000 strings is most of the header.
 * Design: the header is parsed from a prefix of the file; when it does not reach, a longer prefix is read.
 * Long arrays are skipped, not built. Every count is checked against the bytes that could hold it.
 * Limits: 256 MiB of header, 65,536 keys, 1,000,000 tensors, 4 dimensions.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { open } from 'node:fs/promises';

export type GgufScalar = string | number | boolean;

export interface GgufTensor {
  readonly name: string;
  readonly type: number;
  /** Offset from the start of the data section. */
  readonly offset: number;
  /** Null for a type this table does not know. */
  readonly bytes: number | null;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufScalar>;
  /** Number arrays of at most 1024 entries, e.g. heads per layer. */
  readonly numberArrays: ReadonlyMap<string, readonly number[]>;
  /** Lengths of all arrays, by key. */
  readonly arrayLengths: ReadonlyMap<string, number>;
  readonly tensors: readonly GgufTensor[];
  readonly dataOffset: number;
  readonly fileBytes: number;
  /** Which of the tokens that were asked for the vocabulary has. */
  readonly foundTokens?: ReadonlySet<string>;
}

/** The file is no GGUF that this program reads; the message completes "FILE is not usable: ...". */
export class GgufFault extends Error {}

/** The bytes at hand end before the header does. */
class NeedMore extends Error {}

const noTokens: ReadonlySet<string> = new Set();
const headerBytesMax = 256 * 1024 * 1024;
const keysMax = 65_536;
const tensorsMax = 1_000_000;
const keptArrayMax = 1024;

/** [elements per block, bytes per block] by ggml type id (ggml.h, enum ggml_type; ggml.c, type_traits). */
export const blockSizes: Readonly<Record<number, readonly [number, number]>> = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  3: [32, 20],
  6: [32, 22],
  7: [32, 24],
  8: [32, 34],
  9: [32, 36],
  10: [256, 84],
  11: [256, 110],
  12: [256, 144],
  13: [256, 176],
  14: [256, 210],
  15: [256, 292],
  16: [256, 66],
  17: [256, 74],
  18: [256, 98],
  19: [256, 50],
  20: [32, 18],
  21: [256, 110],
  22: [256, 82],
  23: [256, 136],
  24: [1, 1],
  25: [1, 2],
  26: [1, 4],
  27: [1, 8],
  28: [1, 8],
  29: [256, 56],
  30: [1, 2],
  34: [256, 54],
  35: [256, 66],
  39: [32, 17],
  40: [64, 36],
  41: [128, 18],
  42: [64, 18],
};

export async function readGgufHeader(
  file: string,
  tokens: ReadonlySet<string> = noTokens,
): Promise<GgufHeader> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    for (let want = 1024 * 1024; ; want *= 4) {
      const length = Math.min(want, size, headerBytesMax);
      const bytes = Buffer.alloc(length);
      let have = 0;
      while (have < length) {
        const { bytesRead } = await handle.read(bytes, have, length - have, have);
        if (bytesRead === 0) break;
        have += bytesRead;
      }
      try {
        return parseGgufHeader(bytes.subarray(0, have), size, tokens);
      } catch (error) {
        if (!(error instanceof NeedMore)) throw error;
        if (length === size) throw new GgufFault('it ends inside its header; copy or download it again');
        if (length === headerBytesMax) throw new GgufFault('its header is larger than 256 MiB');
      }
    }
  } finally {
    await handle.close();
  }
}

function parseGgufHeader(bytes: Buffer, fileBytes: number, tokens: ReadonlySet<string>): GgufHeader {
  if (fileBytes === 0) throw new GgufFault('it is empty');
  if (bytes.length < 4 || bytes.toString('latin1', 0, 4) !== 'GGUF') {
    throw new GgufFault('it does not begin with "GGUF"; it is another kind of file');
  }
  const reader = new Reader(bytes, fileBytes);
  reader.skip(4);
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    throw new GgufFault(`its GGUF version is ${version}; versions 2 and 3 are read (is it big-endian?)`);
  }
  const tensorCount = reader.count('tensors', tensorsMax);
  const keyCount = reader.count('keys', keysMax);
  const metadata = new Map<string, GgufScalar>();
  const numberArrays = new Map<string, readonly number[]>();
  const arrayLengths = new Map<string, number>();
  const foundTokens = new Set<string>();
  for (let i = 0; i < keyCount; i++) {
    const key = reader.string();
    const type = reader.u32();
    if (type !== 9) {
      metadata.set(key, reader.scalar(type));
      continue;
    }
    const { length, numbers } = reader.array(
      key === 'tokenizer.ggml.tokens' ? tokens : noTokens,
      foundTokens,
    );
    arrayLengths.set(key, length);
    if (numbers !== null) numberArrays.set(key, numbers);
  }
  const tensors = Array.from({ length: tensorCount }, () => readTensor(reader));
  const alignment = Number(metadata.get('general.alignment') ?? 32);
  if (!Number.isInteger(alignment) || alignment < 1 || alignment > 65_536) {
    throw new GgufFault(`its alignment is ${alignment}`);
  }
  const dataOffset = Math.ceil(reader.at / alignment) * alignment;
  return { version, metadata, numberArrays, arrayLengths, tensors, dataOffset, fileBytes, foundTokens };
}

function readTensor(reader: Reader): GgufTensor {
  const name = reader.string();
  const dimensions = reader.u32();
  if (dimensions > 4) throw new GgufFault(`tensor "${name.slice(0, 60)}" has ${dimensions} dimensions`);
  let elements = 1;
  for (let d = 0; d < dimensions; d++) elements *= reader.u64();
  const type = reader.u32();
  const offset = reader.u64();
  const block = blockSizes[type];
  const bytes = block === undefined ? null : Math.ceil(elements / block[0]) * block[1];
  return { name, type, offset, bytes };
}

class Reader {
  at = 0;
  readonly #bytes: Buffer;
  readonly #fileBytes: number;

  constructor(bytes: Buffer, fileBytes: number) {
    this.#bytes = bytes;
    this.#fileBytes = fileBytes;
  }

  skip(length: number): void {
    if (this.at + length > this.#fileBytes)
      throw new GgufFault('it ends inside its header; it was cut short');
    if (this.at + length > this.#bytes.length) throw new NeedMore();
    this.at += length;
  }

  u32(): number {
    this.skip(4);
    return this.#bytes.readUInt32LE(this.at - 4);
  }

  u64(): number {
    this.skip(8);
    const value = Number(this.#bytes.readBigUInt64LE(this.at - 8));
    if (!Number.isSafeInteger(value) || value < 0)
      throw new GgufFault('its header holds an impossible number');
    return value;
  }

  count(what: string, max: number): number {
    const value = this.u64();
    if (value > max) throw new GgufFault(`it claims ${value} ${what}`);
    return value;
  }

  string(): string {
    const length = this.u64();
    this.skip(length);
    return this.#bytes.toString('utf8', this.at - length, this.at);
  }

  scalar(type: number): GgufScalar {
    if (type === 8) return this.string();
    const size = scalarSize(type);
    this.skip(size);
    return readNumber(this.#bytes, this.at - size, type);
  }

  /** Strings are skipped; those in `wanted` are noted in `found`. */
  array(
    wanted: ReadonlySet<string>,
    found: Set<string>,
  ): { readonly length: number; readonly numbers: readonly number[] | null } {
    const type = this.u32();
    const length = this.u64();
    if (type === 9) throw new GgufFault('its header holds nested arrays');
    if (type === 8) {
      if (length * 8 > this.#fileBytes) throw new GgufFault('an array is longer than the file');
      const longest = Math.max(0, ...[...wanted].map((text) => Buffer.byteLength(text)));
      for (let i = 0; i < length; i++) {
        const bytes = this.u64();
        this.skip(bytes);
        if (bytes > longest) continue;
        const text = this.#bytes.toString('utf8', this.at - bytes, this.at);
        if (wanted.has(text)) found.add(text);
      }
      return { length, numbers: null };
    }
    const size = scalarSize(type);
    const start = this.at;
    this.skip(length * size);
    if (length > keptArrayMax) return { length, numbers: null };
    const bytes = this.#bytes;
    const numbers = Array.from({ length }, (_, i) => Number(readNumber(bytes, start + i * size, type)));
    return { length, numbers };
  }
}

function scalarSize(type: number): number {
  const size = [1, 1, 2, 2, 4, 4, 4, 1, -1, -1, 8, 8, 8][type] ?? -1;
  if (size === -1) throw new GgufFault(`its header holds a value of unknown type ${type}`);
  return size;
}

function readNumber(bytes: Buffer, at: number, type: number): number | boolean {
  switch (type) {
    case 0:
      return bytes.readUInt8(at);
    case 1:
      return bytes.readInt8(at);
    case 2:
      return bytes.readUInt16LE(at);
    case 3:
      return bytes.readInt16LE(at);
    case 4:
      return bytes.readUInt32LE(at);
    case 5:
      return bytes.readInt32LE(at);
    case 6:
      return bytes.readFloatLE(at);
    case 7:
      return bytes.readUInt8(at) !== 0;
    case 10:
      return Number(bytes.readBigUInt64LE(at));
    case 11:
      return Number(bytes.readBigInt64LE(at));
    default:
      return bytes.readDoubleLE(at);
  }
}
