import assert from 'node:assert/strict';
import { test } from 'node:test';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { AppError } from '../wire/errors.ts';
import { decodeContent } from './content-encodings.ts';
import {
  largeJson,
  largeKnown,
  largeStreamed,
  mediumJson,
  mediumKnown,
  mediumStreamed,
  smallStreamed,
} from './zstd-bodies.test.kit.ts';
import { ZstdFault } from './zstd-frames.ts';

const limit = 16 * 1024 * 1024;

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer, void, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function decode(bytes: Buffer, coding: string, size = 1000, bytesMax = limit): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of decodeContent(inPieces(bytes, size), coding, bytesMax)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

const json = '{"text":"Grüße 🌍"}';
const plain = Buffer.from(json);
const coded: readonly (readonly [string, Buffer])[] = [
  ['identity', plain],
  ['', plain],
  ['gzip', gzipSync(plain)],
  ['X-GZIP', gzipSync(plain)],
  ['br', brotliCompressSync(plain)],
  ['deflate', deflateSync(plain)],
  ['deflate', deflateRawSync(plain)],
  ['gzip, br', brotliCompressSync(gzipSync(plain))],
  ['identity,deflate , gzip', gzipSync(deflateRawSync(plain))],
];
for (const [coding, bytes] of coded) {
  for (const size of [1, 5, 1e6]) {
    test(`"${coding}" (${bytes.length} bytes) is undone in pieces of ${size}`, async () => {
      assert.equal(await decode(bytes, coding, size), json);
    });
  }
}

test('zstd is undone: small, with and without its size, larger than a window, beside other codings', async () => {
  assert.equal(await decode(smallStreamed, 'zstd', 1), '{"a":1}');
  assert.equal(await decode(mediumKnown, 'zstd', 7), mediumJson);
  assert.equal(await decode(mediumStreamed, 'zstd'), mediumJson);
  assert.ok((await decode(largeKnown, 'zstd')) === largeJson);
  assert.ok((await decode(largeStreamed, 'zstd')) === largeJson);
  assert.equal(await decode(gzipSync(mediumKnown), 'zstd, gzip'), mediumJson);
});

test('zstd of several frames, with a skippable one between', async () => {
  const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
  const frames = Buffer.concat([smallStreamed, skippable, mediumKnown]);
  assert.equal(await decode(frames, 'zstd'), `{"a":1}${mediumJson}`);
});

test('a damaged body ends in an error, wherever it is cut', async () => {
  for (const [coding, bytes] of [
    ['gzip', gzipSync(plain)],
    ['br', brotliCompressSync(plain)],
    ['deflate', deflateSync(plain)],
    ['zstd', smallStreamed],
  ] as const) {
    for (let length = 1; length < bytes.length; length++) {
      await assert.rejects(decode(bytes.subarray(0, length), coding), `${coding} cut at ${length}`);
    }
  }
  await assert.rejects(decode(plain, 'gzip'));
  await assert.rejects(decode(plain, 'zstd'), ZstdFault);
});

test('random damage of a zstd body never hangs, and never expands beyond the limit', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  console.log(`SEED=${seed}`);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let run = 0; run < 300; run++) {
    const bytes = Buffer.from(random(2) === 0 ? mediumKnown : mediumStreamed);
    for (let change = random(4) + 1; change > 0; change--) bytes[random(bytes.length)] = random(256);
    let size = 0;
    try {
      for await (const chunk of decodeContent(inPieces(bytes, 4096), 'zstd', limit)) {
        size += chunk.length;
        assert.ok(size <= limit + 128 * 1024);
      }
    } catch (thrown) {
      assert.ok(thrown instanceof Error);
    }
  }
});

/** A frame's header that asks for `log` bits of window, and blocks that repeat one byte. */
function bomb(log: number, blocks: number): Buffer {
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3]);
  const block = (isLast: boolean): Buffer => {
    const head = (131_072 << 3) | 2 | (isLast ? 1 : 0);
    return Buffer.from([head & 255, (head >> 8) & 255, head >> 16, 65]);
  };
  return Buffer.concat([header, ...Array.from({ length: blocks }, (_, at) => block(at === blocks - 1))]);
}

test('a zstd frame may not ask for a window of gigabytes, nor for work without end', async () => {
  await assert.rejects(decode(bomb(31, 1), 'zstd'), /larger window/);
  await assert.rejects(decode(bomb(23, 2000), 'zstd'), /small blocks/);
  const claimed = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0]);
  await assert.rejects(decode(claimed, 'zstd', 1000, 1000), { code: 'request_too_large' });
});

test('a small body that expands without end is stopped as it grows', async () => {
  let size = 0;
  for await (const chunk of decodeContent(inPieces(bomb(17, 4000), 1000), 'zstd', limit)) {
    size += chunk.length;
    if (size > limit) break;
  }
  assert.ok(size < 2 * limit);
});

test('what is not known here is refused before anything is read', () => {
  const untouched = inPieces(plain, 1);
  for (const coding of ['compress', 'gzip, exi', 'constructor', 'gzip,gzip,gzip,gzip,gzip']) {
    assert.throws(
      () => decodeContent(untouched, coding, limit),
      (error: unknown) => error instanceof AppError && error.code === 'unsupported_media_type',
    );
  }
});
