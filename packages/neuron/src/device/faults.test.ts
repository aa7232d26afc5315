/** NEURON_FAULT in real owners: what it does to a device, and that the device comes back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from 'cortex-core/daemon/clock';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { createDevice } from './create-devices.ts';
import type { OwnerDeath } from './device.ts';
import { Gone, Poisoned } from './device-errors.ts';
import { generateParams, loadSpec } from './fake-engine.test.kit.ts';
import { parseFaults } from './fault-plan.ts';
import type { OwnerDevice } from './owner-device.ts';

const file = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const spec = (modelId: string): LoadSpec => ({ ...loadSpec, modelId, file, context: 256, threads: 1 });
const ignore = () => {};
const short = generateParams([1, 2, 3], 8);

/** Below what a starved test machine might need: for the tests in which something hangs alone. */
const hangMs = 2000;

function openFaulty(worker: 'process' | 'thread', faults: string, log: Log): OwnerDevice {
  const discovered = {
    id: 'cpu',
    index: 0,
    name: 'CPU',
    kind: 'cpu',
    vram_total_mb: 1024,
    compute_capability: null,
    nvidiaIndex: null,
    backendIndex: null,
  } as const;
  return createDevice(discovered, {
    deviceWorker: worker,
    nativeLog: false,
    libraryDir: null,
    clock: systemClock,
    log,
    limits: { respawnMsMin: 1, ...(faults.startsWith('hang') ? { stepMsMax: hangMs } : {}) },
    faults: parseFaults(faults),
  });
}

async function withDevice(
  worker: 'process' | 'thread',
  faults: string,
  run: (device: OwnerDevice, deaths: OwnerDeath[]) => Promise<void>,
  log = silentLog,
): Promise<void> {
  const device = openFaulty(worker, faults, log);
  const deaths: OwnerDeath[] = [];
  device.onOwnerDeath((death) => deaths.push(death));
  try {
    await run(device, deaths);
  } finally {
    await device.shutdown();
  }
}

test('an abort in step 3 ends the stream with an error, and the next life serves', async () => {
  await withDevice('process', 'abort:step=3,lives=1', async (device, deaths) => {
    const { handle } = await device.load(spec('a'), ignore);
    const other = await device.load(spec('b'), ignore);
    let text = '';
    const stream = device.generate(handle, generateParams([1, 2, 3], 100), (event) => {
      text += event.text;
    });
    await assert.rejects(stream, Gone);
    assert.ok(text !== '');
    assert.equal(deaths[0]?.cause, 'signal SIGABRT');
    assert.deepEqual(deaths[0]?.busyHandles, [handle]);
    assert.deepEqual(deaths[0]?.lostHandles, [handle, other.handle]);
    const next = await device.load(spec('a'), ignore);
    assert.equal((await device.generate(next.handle, short, ignore)).finishReason, 'length');
    assert.equal(deaths.length, 1);
  });
});

test('a hang in step 2 is seen, its process is killed and the next life serves', async () => {
  await withDevice('process', 'hang:step=2,lives=1', async (device, deaths) => {
    const { handle } = await device.load(spec('a'), ignore);
    const waiting = device.tokenize.bind(device, handle, 'a', { addSpecial: false, parseSpecial: true });
    const stream = device.generate(
      handle,
      generateParams([1, 2, 3], 100),
      () => void waiting().catch(ignore),
    );
    await assert.rejects(stream, Gone);
    assert.match(deaths[0]?.cause ?? '', /^signal SIGKILL \(a step hung for \d+ s\)$/);
    assert.deepEqual(deaths[0]?.busyHandles, [handle]);
    const next = await device.load(spec('a'), ignore);
    assert.equal((await device.generate(next.handle, short, ignore)).finishReason, 'length');
  });
});

test('a hang on a thread poisons its device, and nobody waits for it', async () => {
  await withDevice('thread', 'hang:step=2', async (device, deaths) => {
    const { handle } = await device.load(spec('a'), ignore);
    await assert.rejects(device.generate(handle, generateParams([1, 2, 3], 100), ignore), Poisoned);
    assert.equal(device.state, 'poisoned');
    await assert.rejects(device.load(spec('a'), ignore), Poisoned);
    await device.dropArch(handle);
    assert.equal(deaths.length, 0);
  });
});

for (const worker of ['thread', 'process'] as const) {
  test(`logits that are no numbers fail that request alone, with their health in the log (${worker})`, async () => {
    const errors: unknown[] = [];
    const log: Log = {
      ...silentLog,
      error: (message, fields) => errors.push({ message, ...fields }),
      child: () => log,
    };
    const check = async (device: OwnerDevice, deaths: OwnerDeath[]): Promise<void> => {
      const [a, b] = [await device.load(spec('a'), ignore), await device.load(spec('b'), ignore)];
      const beside = device.generate(b.handle, generateParams([1, 2, 3], 60), ignore);
      await assert.rejects(
        device.generate(a.handle, generateParams([1, 2, 3], 60), ignore),
        (error: unknown) => {
          assert.equal(Reflect.get(error as object, 'code'), 'logits_not_finite');
          assert.match(String(Reflect.get(error as object, 'detail')), /"nan":\d+/);
          return true;
        },
      );
      assert.equal((await beside).usage.completionTokens, 60);
      assert.equal((await device.generate(a.handle, short, ignore)).finishReason, 'length');
      assert.equal(deaths.length, 0);
    };
    await withDevice(worker, 'nan:step=3,model=a', check, log);
    assert.equal(errors.length, 1);
    assert.match(JSON.stringify(errors), /"health":"[^}]*nan\\*":\d+/);
  });

  test(`a load that takes ten minutes is given up at once (${worker})`, async () => {
    await withDevice(worker, 'slow_load:ms=600000,model=slow', async (device, deaths) => {
      const abort = new AbortController();
      const load = device.load(spec('slow'), () => abort.abort(), abort.signal);
      await assert.rejects(load, { code: 'load_cancelled' });
      const next = await device.load(spec('quick'), ignore);
      assert.equal((await device.generate(next.handle, short, ignore)).finishReason, 'length');
      assert.equal(deaths.length, 0);
    });
  });

  test(`a load that finds no memory says so, and the owner lives (${worker})`, async () => {
    await withDevice(worker, 'load_oom:model=large', async (device, deaths) => {
      await assert.rejects(device.load(spec('large'), ignore), { code: 'insufficient_vram' });
      const next = await device.load(spec('small'), ignore);
      assert.equal((await device.generate(next.handle, short, ignore)).finishReason, 'length');
      assert.equal(deaths.length, 0);
    });
  });
}
