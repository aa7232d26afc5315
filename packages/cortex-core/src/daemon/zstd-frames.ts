/**
 * Where the frames and blocks of a Zstandard body lie, read without decoding them (RFC 8878, section 3.1), so
 * that what a decoder is given is known to be of bounded size and work.
 */

export interface ZstdFrame {
  /** Offset behind the frame. */
  readonly end: number;
  /** Bytes the decoder keeps; 0 = a skippable frame, which holds nothing. */
  readonly windowBytes: number;
  /** What the frame says it expands to; null = it does not say. */
  readonly contentBytes: number | null;
  /** Offsets behind each block; the first begins with the frame's header. */
  readonly blockEnds: readonly number[];
}

/** The body is no Zstandard, or one that is not read here; the message completes "the body ...". */
export class ZstdFault extends Error {}

const frameMagic = 0xfd2fb528;
const blockBytesMax = 128 * 1024;

export function readZstdFrame(body: Buffer, start: number): ZstdFrame {
  if (start + 8 > body.length) throw new ZstdFault('ends inside a frame');
  const magic = body.readUInt32LE(start);
  if ((magic & 0xfffffff0) >>> 0 === 0x184d2a50) {
    const end = start + 8 + body.readUInt32LE(start + 4);
    if (end > body.length) throw new ZstdFault('ends inside a frame');
    return { end, windowBytes: 0, contentBytes: null, blockEnds: [] };
  }
  if (magic !== frameMagic) throw new ZstdFault('is not Zstandard');
  const { headerEnd, hasChecksum, ...sizes } = readHeader(body, start + 4);
  const blockEnds: number[] = [];
  let at = headerEnd;
  for (let isLast = false; !isLast; ) {
    if (at + 3 > body.length) throw new ZstdFault('ends inside a frame');
    const head = body.readUIntLE(at, 3);
    isLast = (head & 1) === 1;
    const kind = (head >> 1) & 3;
    const size = head >> 3;
    if (kind === 3 || size > blockBytesMax) throw new ZstdFault('has a block of an impossible kind or size');
    at += 3 + (kind === 1 ? 1 : size); // a run-length block is one byte, `size` times
    blockEnds.push(at);
  }
  const end = at + (hasChecksum ? 4 : 0);
  if (end > body.length) throw new ZstdFault('ends inside a frame');
  return { end, ...sizes, blockEnds };
}

function readHeader(
  body: Buffer,
  at: number,
): Pick<ZstdFrame, 'windowBytes' | 'contentBytes'> & {
  readonly headerEnd: number;
  readonly hasChecksum: boolean;
} {
  const flags = body[at] ?? 0;
  const isSingle = (flags & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][flags & 3] ?? 0;
  const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][flags >> 6] ?? 0;
  const windowAt = at + 1;
  const dictionaryAt = windowAt + (isSingle ? 0 : 1);
  const sizeAt = dictionaryAt + dictionaryBytes;
  const headerEnd = sizeAt + sizeBytes;
  if (headerEnd > body.length) throw new ZstdFault('ends inside a frame');
  const dictionary = dictionaryBytes === 0 ? 0 : body.readUIntLE(dictionaryAt, dictionaryBytes);
  if (dictionary !== 0) throw new ZstdFault('was compressed with a dictionary');
  const contentBytes = sizeBytes === 0 ? null : readSize(body, sizeAt, sizeBytes);
  const window = body[windowAt] ?? 0;
  const base = 2 ** (10 + (window >> 3));
  const windowBytes = isSingle ? (contentBytes ?? 0) : base + (base / 8) * (window & 7);
  return { headerEnd, hasChecksum: (flags & 4) !== 0, windowBytes, contentBytes };
}

function readSize(body: Buffer, at: number, bytes: number): number {
  if (bytes === 8) return Number(body.readBigUInt64LE(at));
  return body.readUIntLE(at, bytes) + (bytes === 2 ? 256 : 0);
}
