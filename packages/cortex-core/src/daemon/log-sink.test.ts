import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { createLog } from './log.ts';
import { LogSink } from './log-sink.ts';

test('a reader that stalls costs a bounded memory, and is told later how many lines it missed', async () => {
  const read: string[] = [];
  let goOn = (): void => {};
  let isStalled = true;
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      read.push(chunk.toString());
      if (isStalled) goOn = done;
      else done();
    },
  });
  const log = createLog('info', new LogSink(stream));
  const text = 'x'.repeat(1000);
  for (let i = 0; i < 5000; i++) log.info(text);
  assert.ok(stream.writableLength < 1.1 * 1024 * 1024, String(stream.writableLength));
  assert.equal(read.length, 1);
  const drained = new Promise((resolve) => stream.once('drain', resolve));
  isStalled = false;
  goOn();
  await drained;
  log.info('after');
  const lines = read.map((line) => JSON.parse(line) as { message: string; dropped?: number });
  const marker = lines.find(({ dropped }) => dropped !== undefined);
  assert.equal(lines.length - 2 + (marker?.dropped ?? 0), 5000);
  assert.equal(lines.at(-1)?.message, 'after');
});

test('a reader that is gone ends nothing', () => {
  const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error('EPIPE')) });
  const log = createLog('info', new LogSink(stream));
  log.info('a');
  log.info('b');
});
