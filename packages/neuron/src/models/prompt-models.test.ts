import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import { FakeClock } from 'testkit/clock';
import { FakeTransport } from '../device/fake-engine.test.kit.ts';
import { OwnerDevice } from '../device/owner-device.ts';
import { type PromptModel, PromptModels, type PromptModelsLimits } from './prompt-models.ts';

const signal = new AbortController().signal;
const plain = { addSpecial: false, parseSpecial: true };
const countHi = async (model: PromptModel): Promise<number> =>
  (await model.tokenize('hi', plain, signal)).length;
const hasCode = (code: string) => (error: unknown) => error instanceof AppError && error.code === code;

async function start(t: { after(run: () => Promise<void>): void }, limits: Partial<PromptModelsLimits> = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'vocabularies-'));
  const clock = new FakeClock();
  const transports: FakeTransport[] = [];
  const models = new PromptModels({
    clock,
    limits,
    open: () => {
      const transport = new FakeTransport();
      transports.push(transport);
      return new OwnerDevice({
        id: 'vocabulary',
        transport,
        owner: { libraryDir: null, nativeLog: false, gpu: false, faults: [] },
        clock,
        log: silentLog,
      });
    },
  });
  t.after(async () => {
    await models.close();
    await rm(dir, { recursive: true });
  });
  const file = async (name: string): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, name);
    return path;
  };
  return { clock, models, transports, file };
}

test('no owner runs before the first count', async (t) => {
  const { transports, models, file } = await start(t);
  assert.equal(transports.length, 0);
  assert.equal(await models.with('a', await file('a.gguf'), countHi), 2);
  assert.equal(transports.length, 1);
});

test('a burst of counts opens a file once', async (t) => {
  const { transports, models, file } = await start(t);
  const path = await file('a.gguf');
  await Promise.all(Array.from({ length: 24 }, () => models.with('a', path, countHi)));
  assert.equal(transports[0]?.engine.vocabularies.length, 1);
});

test('a file that was replaced is read again', async (t) => {
  const { transports, models, file } = await start(t);
  const path = await file('a.gguf');
  await models.with('a', path, countHi);
  await writeFile(path, 'another model');
  await models.with('a', path, countHi);
  assert.equal(transports[0]?.engine.vocabularies.length, 2);
});

test('the vocabulary that was not asked for longest is closed, one in use is not', async (t) => {
  const { transports, models, file } = await start(t, { vocabulariesMax: 1 });
  const [a, b] = [await file('a.gguf'), await file('b.gguf')];
  await models.with('a', a, async (model) => {
    await models.with('b', b, countHi);
    assert.equal(await countHi(model), 2);
  });
  const closed = (): (boolean | undefined)[] =>
    transports[0]?.engine.vocabularies.map((each) => each.closed) ?? [];
  await models.with('b', b, countHi);
  await models.with('b', b, countHi);
  assert.equal(closed().filter((each) => each === false).length, 1);
});

test('the owner ends when nobody has counted for a while, and the next count gets another', async (t) => {
  const { clock, transports, models, file } = await start(t, { idleMs: 1000 });
  const path = await file('a.gguf');
  await models.with('a', path, countHi);
  await clock.advance(999);
  await models.with('a', path, countHi);
  await clock.advance(999);
  assert.equal(transports[0]?.engine.closed, false);
  await clock.advance(1);
  assert.equal(transports[0]?.engine.closed, true);
  assert.equal(await models.with('a', path, countHi), 2);
  assert.equal(transports.length, 2);
});

test('a count survives one death of the owner', async (t) => {
  const { clock, transports, models, file } = await start(t);
  const path = await file('a.gguf');
  await models.with('a', path, countHi);
  const transport = transports[0] as FakeTransport;
  transport.die();
  const counted = models.with('a', path, countHi);
  await untilSettled(counted, clock);
  assert.equal(await counted, 2);
});

test('the file at which owners die is refused, and the others are counted', async (t) => {
  const { clock, transports, models, file } = await start(t);
  const [good, bad] = [await file('good.gguf'), await file('bad.gguf')];
  await models.with('good', good, countHi);
  const transport = transports[0] as FakeTransport;
  const dieAtBad = (): void => {
    transport.engine.onOpenVocabulary = (path) => {
      if (path === bad) transport.die('signal SIGABRT');
    };
  };
  dieAtBad();
  const spawn = transport.spawn.bind(transport);
  transport.spawn = (events) => {
    const link = spawn(events);
    dieAtBad(); // each owner has an engine of its own
    return link;
  };
  const counted = models.with('bad', bad, countHi);
  await untilSettled(counted, clock);
  await assert.rejects(counted, hasCode('device_gone'));
  await assert.rejects(models.with('bad', bad, countHi), hasCode('invalid_model_file'));
  const other = models.with('good', good, countHi);
  await untilSettled(other, clock);
  assert.equal(await other, 2);
});

test('more counts at once than the limit are refused, and the place is given back', async (t) => {
  const { models, file } = await start(t, { countsMax: 1 });
  const path = await file('a.gguf');
  const first = models.with('a', path, countHi);
  await assert.rejects(models.with('a', path, countHi), hasCode('overloaded'));
  assert.equal(await first, 2);
  assert.equal(await models.with('a', path, countHi), 2);
});

test('a text beyond the limit is refused before it is tokenized', async (t) => {
  const { models, file } = await start(t, { textCharsMax: 1 });
  await assert.rejects(models.with('a', await file('a.gguf'), countHi), hasCode('invalid_request'));
});

test('a file that is gone, or no model, is an error of the file', async (t) => {
  const { models, file } = await start(t);
  await assert.rejects(models.with('a', '/nowhere/a.gguf', countHi), hasCode('model_file_not_found'));
  await assert.rejects(models.with('a', await file('corrupt.gguf'), countHi), hasCode('invalid_model_file'));
});

test('after close nothing is counted', async (t) => {
  const { transports, models, file } = await start(t);
  const path = await file('a.gguf');
  await models.with('a', path, countHi);
  await models.close();
  await models.close();
  assert.equal(transports[0]?.engine.closed, true);
  await assert.rejects(models.with('a', path, countHi), hasCode('shutting_down'));
});

/** Moves the clock over the back-off of owners until `work` is done. */
async function untilSettled(work: Promise<unknown>, clock: FakeClock): Promise<void> {
  let done = false;
  work.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  while (!done) {
    await clock.advance(100);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
