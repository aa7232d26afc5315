import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadedArch } from 'cortex-core/wire/inference';
import { FakeClock } from 'testkit/clock';
import type { OwnerDeath } from './device.ts';
import { Gone, Poisoned } from './device-errors.ts';
import { FakeTransport, generateParams, loadSpec } from './fake-engine.test.kit.ts';
import { OwnerDevice } from './owner-device.ts';
import type { OwnerDeviceLimits } from './owner-device-options.ts';

function start(options: { limits?: Partial<OwnerDeviceLimits>; isolates?: boolean } = {}) {
  const transport = new FakeTransport(options.isolates);
  const clock = new FakeClock();
  const device = new OwnerDevice({
    id: 'cpu',
    transport,
    owner: { libraryDir: null, nativeLog: false, gpu: false, faults: [] },
    clock,
    log: silentLog,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
  const deaths: OwnerDeath[] = [];
  device.onOwnerDeath((death) => deaths.push(death));
  return { transport, clock, device, deaths };
}

const ignore = () => {};
const hasCode = (code: string) => (error: unknown) => error instanceof AppError && error.code === code;

test('a death rejects what ran, names the handles, and the next owner serves', async () => {
  const { transport, clock, device, deaths } = start();
  const a = await device.load(loadSpec, ignore);
  const b = await device.load(loadSpec, ignore);
  const running = device.generate(a.handle, generateParams([1], 1e6), ignore);
  await clock.advance(0);
  transport.die('signal SIGKILL');
  await assert.rejects(running, (error: AppError) => {
    assert.equal(error.code, 'device_gone');
    assert.equal(error.retryable, true);
    assert.equal(error.status, 503);
    assert.equal(error.retryAfterSecs, 2);
    return true;
  });
  assert.deepEqual(deaths, [
    {
      deviceId: 'cpu',
      cause: 'signal SIGKILL',
      lostHandles: [a.handle, b.handle],
      busyHandles: [a.handle],
      loading: null,
      stderrTail: ['ggml: last words'],
    },
  ]);
  assert.equal(device.state, 'respawning');
  const waiting = device.load(loadSpec, ignore);
  await clock.advance(250);
  assert.equal((await waiting).handle, 3);
  assert.equal(device.state, 'ready');
});

test('a handle of a dead owner never names a model of the next', async () => {
  const { transport, clock, device } = start();
  const { handle } = await device.load(loadSpec, ignore);
  transport.die();
  await assert.rejects(device.clearKv(handle), hasCode('device_gone'));
  await clock.advance(250);
  await device.load(loadSpec, ignore);
  await assert.rejects(device.clearKv(handle), hasCode('device_gone'));
  await device.dropArch(handle);
});

test('the back-off doubles up to its limit and a long life resets it', async () => {
  const { transport, clock } = start();
  await clock.advance(0);
  const delays: number[] = [];
  const dieAndCount = async () => {
    const before = transport.engines.length;
    transport.die();
    let waited = 0;
    while (transport.engines.length === before) {
      await clock.advance(250);
      waited += 250;
    }
    delays.push(waited);
    await clock.advance(0);
  };
  for (let death = 0; death < 9; death++) await dieAndCount();
  await clock.advance(60_000);
  await dieAndCount();
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 250]);
});

test('a job waits for an owner only so long', async () => {
  const { transport, clock, device } = start({ limits: { ownerWaitMsMax: 100 } });
  await clock.advance(0);
  transport.die();
  const waiting = assert.rejects(device.queryVram(), hasCode('device_gone'));
  await clock.advance(100);
  await waiting;
});

test('a load behind a longer load has an owner, and is not told that there was none', async () => {
  const { transport, clock, device } = start({ limits: { ownerWaitMsMax: 1000 } });
  await device.queryVram();
  transport.die();
  const hang = () => {
    transport.silent = true;
  };
  const first = assert.rejects(device.load(loadSpec, hang), Gone);
  const second = device.load(loadSpec, ignore);
  await clock.advance(250);
  await clock.advance(5000);
  transport.silent = false;
  transport.die();
  await first;
  await clock.advance(500);
  assert.equal((await second).handle, 1);
  await device.shutdown();
});

test('an engine that cannot start tells every caller why, until it can', async () => {
  const { transport, clock, device, deaths } = start();
  transport.startFails = new AppError('load_failed', 'libllama is missing; npm install it');
  await assert.rejects(device.queryVram(), { code: 'load_failed', message: /libllama is missing/ });
  await clock.advance(0);
  await assert.rejects(device.queryVram(), { code: 'load_failed' });
  assert.equal(deaths.length, 0);
  transport.startFails = null;
  await clock.advance(250);
  assert.deepEqual(await device.queryVram(), { freeMb: 100, totalMb: 200 });
});

test('a poisoned process is replaced, a poisoned thread stays poisoned', async () => {
  for (const isolates of [true, false]) {
    const { transport, clock, device, deaths } = start({ isolates });
    const { handle } = await device.load(loadSpec, ignore);
    transport.engine.models[0]!.stepError = new AppError(
      'device_poisoned',
      'CUDA error: illegal memory access',
    );
    await assert.rejects(device.generate(handle, generateParams([1], 5), ignore), hasCode('device_poisoned'));
    if (!isolates) {
      assert.equal(device.state, 'poisoned');
      await assert.rejects(device.queryVram(), hasCode('device_poisoned'));
    }
    await device.dropArch(handle);
    await clock.advance(250);
    assert.equal(device.state, isolates ? 'ready' : 'poisoned');
    assert.deepEqual(
      deaths.map((death) => death.cause),
      isolates ? ['signal SIGKILL (CUDA error: illegal memory access)'] : [],
    );
    await device.shutdown();
  }
});

test('16 concurrent jobs drain across shutdown, later ones find the device gone', async () => {
  const { device } = start();
  const { handle } = await device.load(loadSpec, ignore);
  const jobs = Array.from({ length: 16 }, () => device.generate(handle, generateParams([1], 5), ignore));
  const closed = device.shutdown();
  await assert.rejects(device.queryVram(), hasCode('device_gone'));
  const results = await Promise.all(jobs);
  assert.ok(results.every((result) => result.finishReason === 'length'));
  await closed;
  await device.shutdown();
  await device.dropArch(handle);
  assert.equal(device.state, 'closed');
});

test('shutdown cancels what does not end within its time', async () => {
  const { clock, device, transport } = start();
  const { handle } = await device.load(loadSpec, ignore);
  const endless = device.generate(handle, generateParams([1], 1e9), ignore);
  const closed = device.shutdown();
  await clock.advance(2500);
  assert.equal((await endless).finishReason, 'cancelled');
  await closed;
  assert.equal(transport.terminated, 0);
  assert.equal(clock.pending, 0);
});

test('loads go one at a time, and a waiting one is given up without reaching the owner', async () => {
  const { transport, device } = start();
  const abort = new AbortController();
  const first = device.load(loadSpec, ignore);
  const second = device.load(loadSpec, ignore, abort.signal);
  abort.abort();
  await assert.rejects(second, hasCode('load_cancelled'));
  await first;
  assert.equal(transport.engine.loads.length, 1);
});

test('a load that ends before its cancel arrives is dropped again', async () => {
  const { transport, device } = start();
  const abort = new AbortController();
  await device.queryVram();
  const load = device.load(loadSpec, () => abort.abort(), abort.signal);
  await assert.rejects(load, hasCode('load_cancelled'));
  await device.queryVram();
  assert.equal(transport.engine.models[0]?.closed ?? true, true);
});

test('a signal that is aborted already costs no job', async () => {
  const { transport, device } = start();
  const result = await device.generate(1, generateParams([1], 5), ignore, AbortSignal.abort());
  assert.equal(result.finishReason, 'cancelled');
  await assert.rejects(device.load(loadSpec, ignore, AbortSignal.abort()), hasCode('load_cancelled'));
  await assert.rejects(device.queryVram(AbortSignal.abort()), hasCode('job_failed'));
  assert.deepEqual(
    transport.sent.map((message) => message.kind),
    ['Start'],
  );
});

test('a step listener that throws ends its own stream only', async () => {
  const { device } = start();
  const { handle } = await device.load(loadSpec, ignore);
  const other = device.generate(handle, generateParams([1], 5), ignore);
  const failing = device.generate(handle, generateParams([1], 5), () => {
    throw new AppError('invalid_request', 'the listener failed');
  });
  await assert.rejects(failing, hasCode('invalid_request'));
  assert.equal((await other).finishReason, 'length');
});

test('more jobs than the limit are refused at once', async () => {
  const { device } = start({ limits: { jobsMax: 2 } });
  const jobs = [device.queryVram(), device.queryVram()];
  await assert.rejects(device.queryVram(), hasCode('overloaded'));
  await Promise.all(jobs);
});

test('a drop passes the limit of jobs: refused, it would leave its model there', async () => {
  const { transport, device } = start({ limits: { jobsMax: 2 } });
  const { handle } = await device.load(loadSpec, ignore);
  const jobs = [device.queryVram(), device.queryVram()];
  await device.dropArch(handle);
  await Promise.all(jobs);
  assert.equal(transport.engine.models[0]?.closed, true);
});

test('jobs of a process that survives its kill end all the same', async () => {
  const { transport, clock, device, deaths } = start({ limits: { stepMsMax: 5000 } });
  const { handle } = await device.load(loadSpec, ignore);
  transport.silent = true;
  transport.immortal = true;
  const hung = assert.rejects(device.generate(handle, generateParams([1], 1e6), ignore), Gone);
  await clock.advance(6100);
  const late = assert.rejects(device.queryVram(), Gone);
  await clock.advance(750);
  await hung;
  await clock.advance(15_000);
  await late;
  assert.equal(deaths.length, 0);
  transport.silent = false;
  transport.die();
  await clock.advance(250);
  assert.deepEqual(await device.queryVram(), { freeMb: 100, totalMb: 200 });
  assert.deepEqual(deaths[0]?.lostHandles, [handle]);
  await device.shutdown();
  assert.equal(clock.pending, 0);
});

test('a restart gives up the load that blocks its owner, and a thread gets the time to free its models', async () => {
  const { transport, clock, device, deaths } = start({ isolates: false });
  await device.queryVram();
  const { engine } = transport;
  let restarted: Promise<void> | undefined;
  engine.duringLoad = () => {
    restarted ??= device.restartOwner();
  };
  await assert.rejects(device.load(loadSpec, ignore), hasCode('device_gone'));
  await clock.advance(0);
  await restarted;
  assert.deepEqual([engine.closed, engine.models.length, transport.terminated], [true, 0, 0]);
  assert.equal(deaths[0]?.cause, 'restarted');
});

test('an owner that hangs in a step is killed, named, and replaced', async () => {
  const { transport, clock, device, deaths } = start({ limits: { stepMsMax: 5000, ownerWaitMsMax: 1e6 } });
  const { handle } = await device.load(loadSpec, ignore);
  transport.silent = true;
  const hung = device.generate(handle, generateParams([1], 1e6), ignore);
  await clock.advance(5900);
  assert.equal(transport.terminated, 0);
  transport.silent = false;
  await clock.advance(5000); // one late message is a sign of life
  assert.equal(transport.terminated, 0);
  transport.silent = true;
  const rejected = assert.rejects(hung, Gone);
  await clock.advance(6100);
  await rejected;
  assert.equal(transport.terminated, 1);
  assert.match(deaths[0]?.cause ?? '', /^signal SIGKILL \(a step hung for \d+ s\)$/);
  assert.deepEqual(deaths[0]?.busyHandles, [handle]);
  transport.silent = false;
  await clock.advance(250);
  assert.equal((await device.load(loadSpec, ignore)).handle, handle + 1);
  await device.shutdown();
});

test('an owner without work may be silent for ever, and gets its full time for the next job', async () => {
  const { transport, clock, device } = start({ limits: { stepMsMax: 5000 } });
  await device.queryVram();
  await clock.advance(4900);
  transport.silent = true;
  const late = device.queryVram();
  await clock.advance(4900);
  assert.equal(transport.terminated, 0);
  transport.die();
  await assert.rejects(late, Gone);
  await clock.advance(1e6);
  assert.equal(transport.terminated, 0);
  await device.shutdown();
  assert.equal(clock.pending, 0);
});

test('a load may be silent for long, a load that was given up may not', async () => {
  for (const isGivenUp of [false, true]) {
    const { transport, clock, device, deaths } = start({
      limits: { stepMsMax: 5000, loadSilenceMsMax: 50_000 },
    });
    await device.queryVram();
    transport.silent = true;
    const abort = new AbortController();
    const ended = device.load(loadSpec, ignore, abort.signal).catch((error: AppError) => error.code);
    if (isGivenUp) abort.abort();
    await clock.advance(isGivenUp ? 6100 : 49_900);
    assert.equal(transport.terminated, isGivenUp ? 1 : 0);
    await clock.advance(2000);
    assert.equal(transport.terminated, 1);
    assert.equal(await ended, isGivenUp ? 'load_cancelled' : 'device_gone');
    assert.match(deaths[0]?.cause ?? '', /the load of "fake" hung/);
    assert.equal(deaths[0]?.loading, 'fake');
    await device.shutdown();
  }
});

test('an owner that never comes up is replaced', async () => {
  const { transport, clock, device, deaths } = start({
    limits: { stepMsMax: 5000, loadSilenceMsMax: 50_000 },
  });
  transport.silent = true;
  await clock.advance(51_100);
  assert.equal(transport.terminated, 1);
  transport.silent = false;
  await clock.advance(250);
  assert.deepEqual(await device.queryVram(), { freeMb: 100, totalMb: 200 });
  assert.equal(deaths.length, 0);
  await device.shutdown();
});

test('a thread that hangs leaves its device poisoned: everyone is told at once, drops succeed', async () => {
  const { transport, clock, device, deaths } = start({ isolates: false, limits: { stepMsMax: 5000 } });
  const { handle } = await device.load(loadSpec, ignore);
  transport.silent = true;
  const hung = assert.rejects(device.generate(handle, generateParams([1], 1e6), ignore), Poisoned);
  await clock.advance(6100);
  await hung;
  assert.equal(device.state, 'poisoned');
  await assert.rejects(device.load(loadSpec, ignore), { message: /device_worker = "process"/ });
  await assert.rejects(device.restartOwner(), Poisoned);
  await device.dropArch(handle);
  assert.equal(deaths.length, 0);
  const closed = device.shutdown();
  await clock.advance(10_000);
  await closed;
});

test('a restart does not wait for the back-off', async () => {
  const { transport, clock, device } = start({ limits: { respawnMsMin: 20_000 } });
  await device.queryVram();
  transport.die();
  const restarted = device.restartOwner();
  await clock.advance(0);
  await restarted;
  assert.equal(transport.engines.length, 2);
  await clock.advance(60_000);
  assert.equal(transport.engines.length, 2);
});

test('each owner is told which life of its device it is', async () => {
  const { transport, clock, device } = start();
  await device.queryVram();
  transport.die();
  await clock.advance(250);
  const restarted = device.restartOwner();
  await clock.advance(0);
  await restarted;
  const lives = transport.sent.flatMap((message) => (message.kind === 'Start' ? [message.life] : []));
  assert.deepEqual(lives, [1, 2, 3]);
});

test('whatever happens in whatever order, every job ends and nothing is left behind', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  const random = mulberry32(seed);
  const pick = (count: number) => Math.floor(random() * count);
  for (let round = 0; round < 80; round++) {
    const { transport, clock, device } = start({ limits: { stepMsMax: 5000, jobsMax: 12 } });
    const jobs: Promise<unknown>[] = [];
    const track = (job: Promise<unknown>): void => {
      job.catch(ignore);
      jobs.push(job);
    };
    const aborts: AbortController[] = [];
    const handles: number[] = [1];
    const handle = () => handles[Math.max(0, handles.length - 1 - pick(3))]!;
    const remember = (loaded: LoadedArch): void => void handles.push(loaded.handle);
    for (let step = 0; step < 60; step++) {
      const abort = new AbortController();
      aborts.push(abort);
      const inputs = Array.from({ length: 1 + pick(3) }, () => Int32Array.of(1));
      const actions: (() => unknown)[] = [
        () => track(device.load(loadSpec, ignore, abort.signal).then(remember)),
        () => track(device.transferIn({ spec: loadSpec, prefixes: [] }, ignore, abort.signal).then(remember)),
        () => track(device.generate(handle(), generateParams([1], 1 + pick(30)), ignore, abort.signal)),
        () => track(device.embed(handle(), inputs, abort.signal)),
        () => track(device.exportArch(handle(), abort.signal)),
        () => track(device.dropArch(handle())),
        () => aborts[pick(aborts.length)]?.abort(),
        () => clock.advance([0, 0, 0, 250, 6500][pick(5)]!),
        () => clock.advance(0),
        () => random() < 0.2 && transport.die(),
        () => {
          if (random() < 0.2) track(device.restartOwner());
        },
        () => {
          transport.silent = random() < 0.15;
        },
      ];
      await actions[pick(actions.length)]?.();
    }
    transport.silent = false;
    const closed = device.shutdown();
    await clock.advance(30_000);
    await closed;
    const ended = Promise.allSettled(jobs).then(() => true);
    assert.equal(await Promise.race([ended, turns(20)]), true, `a job hangs: SEED=${seed} round ${round}`);
    assert.equal(clock.pending, 0, `a timer is left: SEED=${seed} round ${round}`);
    assert.equal(device.state, 'closed');
  }
});

async function turns(count: number): Promise<false> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
  return false;
}

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
