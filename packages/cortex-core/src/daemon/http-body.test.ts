import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { AppError } from '../wire/errors.ts';
import { readBody } from './http-body.ts';

const limits = { bytesMax: 1024 * 1024, slowMs: 30_000 };
const response = { writeContinue: () => {} } as unknown as ServerResponse;
const hasCode = (code: string) => (error: unknown) => error instanceof AppError && error.code === code;

function upload(headers: Record<string, string> = {}): PassThrough & IncomingMessage {
  return Object.assign(new PassThrough(), { headers }) as unknown as PassThrough & IncomingMessage;
}

/** Lets what waits on a settled promise run. */
const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => process.nextTick(resolve));
};

test('a body that moves may take for ever; one that stands still is refused, with how far it came', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const moving = upload();
  const read = readBody(moving, response, limits);
  const piece = Buffer.from(' '.repeat(1024));
  for (let window = 0; window < 100; window++) {
    moving.write(piece);
    await settle();
    t.mock.timers.tick(limits.slowMs);
    await settle();
  }
  moving.end();
  assert.equal((await read).length, 100 * 1024);

  const standing = upload();
  const refused = readBody(standing, response, limits);
  standing.write(Buffer.from(' '.repeat(1500)));
  await settle();
  t.mock.timers.tick(limits.slowMs);
  standing.write(Buffer.from(' '));
  await settle();
  t.mock.timers.tick(limits.slowMs);
  await assert.rejects(refused, (error: unknown) => {
    assert.ok(hasCode('request_timeout')(error));
    assert.match((error as Error).message, /after 1501 bytes/);
    return true;
  });
  assert.equal(standing.destroyed, false, 'the refusal can still be sent');
});

test('what is no UTF-8 is refused with a sentence, a byte-order mark is passed over', async () => {
  for (const bytes of [
    [0x22, 0xff, 0x22],
    [0xed, 0xa0, 0x80],
    [0xff, 0xfe, 0x7b, 0],
  ]) {
    const body = upload();
    body.end(Buffer.from(bytes));
    await assert.rejects(readBody(body, response, limits), /UTF-8/);
  }
  const marked = upload();
  marked.end(Buffer.from('\ufeff{"a":"\\ud800"}'));
  assert.equal((await readBody(marked, response, limits)).toString(), '{"a":"\\ud800"}');
});

test('a body without a length is cut at the limit, and the request stays open for the answer', async () => {
  const body = upload();
  const read = readBody(body, response, { ...limits, bytesMax: 10 });
  body.write(Buffer.from('01234567890'));
  await assert.rejects(read, hasCode('request_too_large'));
  assert.equal(body.destroyed, false);
});
