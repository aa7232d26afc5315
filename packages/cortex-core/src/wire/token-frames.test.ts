import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeSse, SseParser, sseKeepAlive } from './sse.ts';
import { encodeErrorFrame, encodeFrame, type Frame, FrameReader } from './token-frames.ts';

const events = [
  encodeSse({ text: 'Straße 日本 ✨' }),
  `${encodeSse({ n: 1 })}${encodeSse({ n: 2 })}`,
  encodeSse('[DONE]'),
];
const stream = [
  encodeFrame(events[0]!, [17]),
  sseKeepAlive,
  encodeFrame(events[1]!, [4, 151935, 0]),
  encodeFrame(events[2]!, []),
  encodeErrorFrame(encodeSse({ error: { message: 'ä' } })),
].join('');

function read(chunks: Iterable<Uint8Array>): { frames: Frame[]; reader: FrameReader } {
  const reader = new FrameReader();
  const frames: Frame[] = [];
  for (const chunk of chunks) frames.push(...reader.push(chunk));
  return { frames, reader };
}

function described(frames: readonly Frame[]): unknown[] {
  return frames.map((frame) => {
    if (frame.kind === 'keepAlive') return frame;
    return { ...frame, bytes: Buffer.from(frame.bytes).toString('utf8') };
  });
}

const expected = [
  { kind: 'events', bytes: events[0], tokens: [17] },
  { kind: 'keepAlive' },
  { kind: 'events', bytes: events[1], tokens: [4, 151935, 0] },
  { kind: 'events', bytes: events[2], tokens: [] },
  { kind: 'error', bytes: encodeSse({ error: { message: 'ä' } }) },
];

function* cut(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test('a reader gives events and ids back, however the bytes are cut', () => {
  const bytes = Buffer.from(stream);
  for (let size = 1; size <= bytes.length; size++) {
    assert.deepEqual(described(read(cut(bytes, size)).frames), expected, `pieces of ${size}`);
  }
});

test('a frame that is not whole gives nothing, neither text nor ids', () => {
  const bytes = Buffer.from(encodeFrame(events[1]!, [1, 2]));
  for (let length = 1; length < bytes.length; length++) {
    const { frames, reader } = read([bytes.subarray(0, length)]);
    assert.deepEqual(frames, []);
    assert.equal(reader.isMidFrame, true);
  }
  assert.equal(read([bytes]).reader.isMidFrame, false);
});

test('a stream without frames passes byte for byte, whatever comments it has', () => {
  const plain = [
    `data: {"a":1}\n\n: tok 3 1\nabc`,
    `: hello\n\ndata: x\n\n`,
    ': tok x\ndata: y\n\n',
    ': tok 5  1\n',
    ': tok \n\n',
    ': tokens\n\n',
    'event: ping\ndata: {}\n\n',
    '\n\n',
  ];
  for (const text of plain) {
    const bytes = Buffer.from(text);
    for (let size = 1; size <= bytes.length; size++) {
      const { frames, reader } = read(cut(bytes, size));
      const passed = frames.map((frame) => (frame.kind === 'plain' ? Buffer.from(frame.bytes) : null));
      assert.ok(!passed.includes(null));
      assert.equal(Buffer.concat(passed as Buffer[]).toString(), text);
      assert.equal(reader.isMidFrame, false);
    }
  }
});

test('to a plain reader of server-sent events a frame is a comment', () => {
  const data = new SseParser().push(Buffer.from(stream)).map((event) => event.data);
  assert.deepEqual(data.slice(0, 3), [JSON.stringify({ text: 'Straße 日本 ✨' }), '{"n":1}', '{"n":2}']);
});

test('a frame that claims too much is refused before it is waited for', () => {
  assert.throws(() => new FrameReader().push(Buffer.from(': tok 99999999 1\n')), RangeError);
  assert.throws(() => new FrameReader().push(Buffer.from(`: tok ${'1 '.repeat(3_000_000)}`)), RangeError);
});
