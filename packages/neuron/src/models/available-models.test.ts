import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from 'testkit/clock';
import { AvailableModels } from './available-models.ts';
import type { ModelSources } from './sources.ts';

test('a scan is shared while it runs, and is good for a while from its end on', async () => {
  const clock = new FakeClock();
  let scans = 0;
  let finish: () => void = () => {};
  const list = async (): ReturnType<ModelSources['list']> => {
    scans++;
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    return new Map();
  };
  const models = new AvailableModels({ list }, { estimateMb: async () => null }, clock);
  const first = models.list();
  await clock.advance(20_000);
  const second = models.list();
  finish();
  assert.equal(await second, await first);
  await clock.advance(4900);
  assert.equal(await models.list(), await first);
  assert.equal(scans, 1);
  await clock.advance(200);
  const third = models.list();
  finish();
  await third;
  assert.equal(scans, 2);
});
