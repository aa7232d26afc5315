import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeSse, SseParser } from './sse.ts';

const encoder = new TextEncoder();
const stream = encoder.encode(
  ': hello\n\ndata: {"a":1}\n\nevent: ping\r\ndata: é漢🦆\r\n\r\ndata: one\ndata: two\n\ndata\n\nid: 7\n\ndata: [DONE]\n\n',
);
const expected = [
  { event: '', data: '{"a":1}' },
  { event: 'ping', data: 'é漢🦆' },
  { event: '', data: 'one\ntwo' },
  { event: '', data: '' },
  { event: '', data: '[DONE]' },
];

test('a stream pushed whole yields its events', () => {
  assert.deepEqual(new SseParser().push(stream), expected);
});

test('a stream split at every pair of bytes yields the same events', () => {
  for (let first = 0; first <= stream.length; first++) {
    for (let second = first; second <= stream.length; second++) {
      const parser = new SseParser();
      const events = [
        ...parser.push(stream.subarray(0, first)),
        ...parser.push(stream.subarray(first, second)),
        ...parser.push(stream.subarray(second)),
      ];
      assert.deepEqual(events, expected, `split at ${first} and ${second}`);
    }
  }
});

test('an event that never ends is not an event', () => {
  assert.deepEqual(new SseParser().push(encoder.encode('data: cut')), []);
});

test('a lone CR ends a line', () => {
  assert.deepEqual(new SseParser().push(encoder.encode('data: x\r\rdata: y\r\r')), [
    { event: '', data: 'x' },
    { event: '', data: 'y' },
  ]);
});

test('a line beyond the limit is refused instead of kept', () => {
  const parser = new SseParser(10);
  assert.throws(() => parser.push(encoder.encode('data: 12345678901')), RangeError);
});

test('what is encoded parses back', () => {
  const text = encodeSse({ text: 'a\nb' }, 'delta') + encodeSse('[DONE]');
  assert.deepEqual(new SseParser().push(encoder.encode(text)), [
    { event: 'delta', data: '{"text":"a\\nb"}' },
    { event: '', data: '[DONE]' },
  ]);
});
