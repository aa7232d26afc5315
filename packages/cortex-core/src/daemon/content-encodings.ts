/**
 * The codings of a request body, undone: gzip, br, zstd and deflate (in its wrapper, or bare as some clients
 * send it), several in one header too (RFC 9110, section 8.4), the last one first.
 * Limits: four codings; what comes out is counted by the reader.
 */
import { Readable, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from 'node:zlib';
import { AppError } from '../wire/errors.ts';
import { bodyTooLarge } from './body-too-large.ts';
import { decodeZstd } from './zstd.ts';

type Bytes = AsyncIterable<Buffer>;
type Decode = (source: Bytes, bytesMax: number) => Bytes;

const codingsMax = 4;

const decoders: Readonly<Record<string, Decode | null>> = {
  identity: null,
  '': null,
  gzip: (source) => through(source, createGunzip()),
  'x-gzip': (source) => through(source, createGunzip()),
  br: (source) => through(source, createBrotliDecompress()),
  deflate: inflate,
  zstd: unzstd,
};

/** Throws `unsupported_media_type` for a coding that is not known here, before anything is read. */
export function decodeContent(source: Bytes, header: string | undefined, bytesMax: number): Bytes {
  const codings = (header ?? '').split(',').map((coding) => coding.trim().toLowerCase());
  const used = codings.map(decoderOf).filter((decode) => decode !== null);
  if (used.length > codingsMax) {
    throw new AppError('unsupported_media_type', `more than ${codingsMax} content-encodings; send one`);
  }
  return used.reduceRight((bytes, decode) => decode(bytes, bytesMax), source);
}

function decoderOf(coding: string): Decode | null {
  const decode = Object.hasOwn(decoders, coding) ? decoders[coding] : undefined;
  if (decode !== undefined) return decode;
  throw new AppError(
    'unsupported_media_type',
    `content-encoding "${coding.slice(0, 40)}" is not supported; send gzip, br, zstd, deflate or none`,
  );
}

async function* through(source: Bytes, decoder: Transform): AsyncGenerator<Buffer, void, void> {
  const input = Readable.from(source);
  input.once('error', (error) => decoder.destroy(error));
  input.pipe(decoder);
  try {
    yield* decoder as AsyncIterable<Buffer>;
  } finally {
    input.destroy();
    decoder.destroy();
  }
}

/** By the first two bytes (RFC 1950, section 2.2): a wrapper names the method and is divisible by 31. */
async function* inflate(source: Bytes): AsyncGenerator<Buffer, void, void> {
  const iterator = source[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < 2) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  async function* all(): AsyncGenerator<Buffer, void, void> {
    yield head;
    yield* { [Symbol.asyncIterator]: () => iterator };
  }
  const first = head[0] ?? 0;
  const isWrapped = head.length >= 2 && (first & 15) === 8 && (first * 256 + (head[1] ?? 0)) % 31 === 0;
  yield* through(all(), isWrapped ? createInflate() : createInflateRaw());
}

/** The decoder wants to see frames whole, so the compressed body is gathered first. */
async function* unzstd(source: Bytes, bytesMax: number): AsyncGenerator<Buffer, void, void> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    chunks.push(chunk);
    if (size > bytesMax) throw bodyTooLarge(bytesMax);
  }
  yield* decodeZstd(Buffer.concat(chunks, size), bytesMax);
}
