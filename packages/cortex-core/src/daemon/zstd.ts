/**
 * Zstandard bodies, which Node 20 cannot read by itself.
 *
 * Problem: the decoder (fzstd, plain JavaScript) takes memory and time as the body tells it to, on the thread
 * that serves everybody.
 * Design: frames are looked at first (zstd-frames.ts). One that says how large it is and is large is decoded
 * in one go, into exactly that; every other one block by block, with a turn for others between two. There
 * the decoder moves its whole window for each block, so that blocks x window is bounded. Output is counted
 * as it comes. Checksums are not verified: what comes out has to be JSON.
 * Limits: `bytesMax` in and out, windows of 8 MiB (what RFC 8878 asks decoders to support) or `bytesMax`,
 * 8 GiB moved, four times the blocks that a large frame needs.
 */
import { setImmediate } from 'node:timers/promises';
import { Decompress, decompress } from 'fzstd';
import { bodyTooLarge } from './body-too-large.ts';
import { readZstdFrame, ZstdFault, type ZstdFrame } from './zstd-frames.ts';

const windowBytesMax = 8 * 1024 * 1024;
const blockBytes = 128 * 1024;
const movedBytesMax = 8 * 1024 ** 3;

/** Yields the content. Throws `ZstdFault`, or what the decoder throws on a body that is damaged inside. */
export async function* decodeZstd(body: Buffer, bytesMax: number): AsyncGenerator<Buffer, void, void> {
  let moved = 0;
  for (let at = 0; at < body.length; ) {
    const frame = readZstdFrame(body, at);
    const { end, windowBytes, contentBytes, blockEnds } = frame;
    const start = at;
    at = end;
    if (blockEnds.length === 0) continue;
    if (contentBytes !== null && contentBytes > windowBytesMax) {
      yield decodeWhole(body.subarray(start, end), frame, bytesMax);
      continue;
    }
    if (windowBytes > Math.max(windowBytesMax, bytesMax)) throw new ZstdFault('needs a larger window');
    moved += windowBytes * blockEnds.length;
    if (moved > movedBytesMax) throw new ZstdFault('consists of too many small blocks');
    yield* decodeBlocks(body, start, frame);
  }
}

function decodeWhole(bytes: Buffer, { contentBytes, blockEnds }: ZstdFrame, bytesMax: number): Buffer {
  const size = contentBytes ?? 0;
  if (size > bytesMax) throw bodyTooLarge(bytesMax);
  if (blockEnds.length > 64 + 4 * Math.ceil(size / blockBytes)) {
    throw new ZstdFault('consists of too many small blocks');
  }
  return asBuffer(decompress(bytes));
}

async function* decodeBlocks(
  body: Buffer,
  start: number,
  { end, blockEnds }: ZstdFrame,
): AsyncGenerator<Buffer, void, void> {
  const ready: Uint8Array[] = [];
  const decoder = new Decompress((chunk) => void ready.push(chunk));
  let from = start;
  for (const [index, blockEnd] of blockEnds.entries()) {
    const isLast = index === blockEnds.length - 1;
    const to = isLast ? end : blockEnd;
    decoder.push(body.subarray(from, to), isLast);
    from = to;
    for (const chunk of ready.splice(0)) yield asBuffer(chunk);
    await setImmediate();
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
