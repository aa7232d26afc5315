import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { ExportedArch, LoadedArch, LoadSpec, ModelFacts } from 'cortex-core/wire/inference';
import { modelSpecSchema } from 'cortex-core/wire/neuron';
import { Admission } from '../admission/admission.ts';
import type { Device, OwnerDeath } from '../device/device.ts';
import { ModelLoader } from './loader.ts';
import { Placement } from './placement.ts';
import { ModelRegistry } from './registry.ts';
import { ModelSources } from './sources.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const gone = (): AppError => new AppError('device_gone', 'the owner died');

/** Keeps its models in a set, fails where a test says so, and waits where a test holds it. */
class MovingDevice {
  readonly state = 'ready';
  readonly id: string;
  readonly resident = new Map<number, LoadSpec>();
  readonly calls: string[] = [];
  readonly fails = new Set<string>();
  hold: Promise<void> = Promise.resolve();
  #handles = 0;
  #listener: (death: OwnerDeath) => void = () => {};

  constructor(id: string) {
    this.id = id;
  }

  load(spec: LoadSpec, _onProgress: unknown, signal?: AbortSignal): Promise<LoadedArch> {
    return this.#bringIn('load', spec, signal);
  }

  transferIn(exported: ExportedArch, _onProgress: unknown, signal?: AbortSignal): Promise<LoadedArch> {
    return this.#bringIn('transferIn', exported.spec, signal);
  }

  async exportArch(handle: number): Promise<ExportedArch> {
    this.#note('exportArch');
    const spec = this.resident.get(handle);
    if (spec === undefined) throw gone();
    return { spec, prefixes: [] };
  }

  async dropArch(handle: number): Promise<void> {
    this.calls.push('dropArch');
    this.resident.delete(handle);
  }

  async shutdown(): Promise<void> {
    this.resident.clear();
  }

  async restartOwner(): Promise<void> {
    this.#note('restartOwner');
    this.die('restarted');
    await this.hold;
  }

  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void {
    this.#listener = listener;
    return () => {};
  }

  die(cause = 'signal SIGKILL', busy = false, loading: string | null = null): void {
    const lostHandles = [...this.resident.keys()];
    this.resident.clear();
    const busyHandles = busy ? lostHandles : [];
    this.#listener({ deviceId: this.id, cause, lostHandles, busyHandles, loading, stderrTail: [] });
  }

  async #bringIn(call: string, spec: LoadSpec, signal?: AbortSignal): Promise<LoadedArch> {
    this.#note(call);
    await this.hold;
    signal?.throwIfAborted();
    if (this.fails.has(`${call} late`)) throw gone();
    const handle = ++this.#handles;
    this.resident.set(handle, spec);
    const { context, slots } = spec;
    const facts = { context, slots, memoryMb: 50, fileBytes: 1, namedTemplates: {}, chatTemplate: null };
    return { handle, facts: facts as unknown as ModelFacts };
  }

  #note(call: string): void {
    this.calls.push(call);
    if (this.fails.has(call)) throw gone();
  }
}

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mover-'));
  for (const name of ['a', 'b', 'c']) await copyFile(tiny, join(dir, `${name}.gguf`));
});
after(() => rm(dir, { recursive: true }));

const spec = (model_id: string) => modelSpecSchema.parse({ model_id });
const never = new AbortController().signal;

function setUp(budgets = [1000, 1000]) {
  const config = neuronConfigSchema.parse({
    engine: { prefix_cache_mb: 0 },
    models: { dirs: [dir], hf_cache: join(dir, 'none') },
  });
  const [zero, one] = [new MovingDevice('cpu:0'), new MovingDevice('cpu:1')];
  const slots = [zero, one].map((device, at) => ({
    indices: [at],
    kind: 'cpu',
    device: device as unknown as Device,
    budgetMb: budgets[at]!,
  }));
  const sources = new ModelSources(config.models, { fetch, clock: systemClock }, {});
  const group = new MovingDevice('cpu:0+1');
  const placement = new Placement(slots, { openGroup: () => group as unknown as Device });
  const loader = new ModelLoader(sources, placement, config.engine);
  const limits = { maxInFlight: 4, maxQueueDepth: 8, maxWaitMs: 1000, maxPerPrincipal: 0 };
  const createGate = () => new Admission(limits, systemClock);
  const registry = new ModelRegistry({
    config,
    slots,
    sources,
    loader,
    createGate,
    clock: systemClock,
    log: silentLog,
  });
  const load = (id: string) => registry.load({ ...spec(id), devices: [0] });
  const freeMb = async (at: number) => (await placement.budget(slots[at]!)).freeMb;
  const deviceOf = (id: string) => registry.serving(id).device.id;
  return { registry, zero, one, load, freeMb, deviceOf };
}

function hold(device: MovingDevice): () => void {
  let release: () => void = () => {};
  device.hold = new Promise((resolve) => {
    release = resolve;
  });
  return () => {
    device.hold = Promise.resolve();
    release();
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof AppError ? error.code : String(error)),
  );

test('a moved model serves there, its memory is given back here, and a recovery stays there', async () => {
  const { registry, zero, one, load, freeMb, deviceOf } = setUp();
  await load('a');
  const before = registry.serving('a');
  await registry.move('a', [1]);
  assert.equal(deviceOf('a'), 'cpu:1');
  assert.deepEqual([zero.resident.size, one.resident.size], [0, 1]);
  assert.deepEqual([await freeMb(0), await freeMb(1)], [1000, 950]);
  // A request that was on its way finds the model where it is now.
  assert.deepEqual([before.device.id, before.handle], ['cpu:1', 1]);
  assert.deepEqual((await registry.find('a'))?.devices, [1]);
  one.die();
  await registry.whenServing('a', never);
  assert.equal(deviceOf('a'), 'cpu:1');
  await registry.move('a', [1]);
  assert.equal(one.calls.filter((call) => call === 'transferIn').length, 1);
});

test('a model that was split is recovered on the one device that it moved to', async () => {
  const { registry, one, deviceOf } = setUp();
  await registry.load({ ...spec('a'), tensor_parallel: 2, split_mode: 'row' });
  assert.equal(deviceOf('a'), 'cpu:0+1');
  await registry.move('a', [1]);
  one.die();
  await registry.whenServing('a', never);
  assert.equal(deviceOf('a'), 'cpu:1');
  await registry.move('a', [0, 1]);
  assert.equal(deviceOf('a'), 'cpu:0+1');
});

test('a model that moved is recovered with the slots that it had, also where there is room for more', async () => {
  const { registry, one, load } = setUp([75, 1000]);
  await load('a');
  const { slots } = registry.serving('a').facts;
  assert.ok(slots < 4);
  await registry.move('a', [1]);
  one.die();
  assert.equal((await registry.whenServing('a', never)).facts.slots, slots);
  assert.equal(one.calls.at(-1), 'load');
});

test('a move waits for running requests, and newcomers wait for the move', async () => {
  const { registry, one, load, deviceOf } = setUp();
  await load('a');
  const permit = await registry.serving('a').admission.acquire(null, never);
  const moving = registry.move('a', [1]);
  await turn();
  assert.equal(deviceOf('a'), 'cpu:0');
  const newcomer = registry.whenServing('a', never);
  assert.equal((await registry.find('a'))?.status, 'loaded');
  assert.deepEqual(one.calls, []);
  const release = hold(one);
  permit.release();
  await turn();
  assert.deepEqual(one.calls, ['transferIn']);
  assert.throws(() => registry.serving('a'), { code: 'model_recovering' });
  assert.equal(registry.isLoaded('a'), true);
  release();
  await moving;
  assert.equal((await newcomer).device.id, 'cpu:1');
});

test('a request that was admitted in the last moment still ends where it began', async () => {
  const { registry, one, load, deviceOf } = setUp();
  await load('a');
  const serving = registry.serving('a');
  const first = await serving.admission.acquire(null, never);
  const moving = registry.move('a', [1]);
  await turn();
  first.release();
  const last = await serving.admission.acquire(null, never); // had its prompt read when the drain began
  await turn();
  assert.deepEqual([deviceOf('a'), one.calls.length], ['cpu:0', 0]);
  last.release();
  await moving;
  assert.equal(deviceOf('a'), 'cpu:1');
});

test('a request that is admitted while its model moves waits for it', async () => {
  const { registry, one, load } = setUp();
  await load('a');
  const serving = registry.serving('a');
  const release = hold(one);
  const moving = registry.move('a', [1]);
  assert.equal((await registry.whenAdmitted('a', never)).device.id, 'cpu:0'); // it drains: that one runs now
  while (one.calls.length === 0) await turn();
  const permit = await serving.admission.acquire(null, never);
  const admitted = registry.whenAdmitted('a', never);
  release();
  assert.equal((await admitted).device.id, 'cpu:1');
  permit.release();
  await moving;
});

test('a request that does not end is cut with an error that says to retry, later ones are not', async () => {
  const { registry, load } = setUp();
  await load('a');
  const running = registry.serving('a');
  const permit = await running.admission.acquire(null, never);
  const { cut } = running;
  cut.addEventListener('abort', () => permit.release());
  await registry.move('a', [1], 0);
  assert.equal((cut.reason as AppError).code, 'model_recovering');
  assert.equal((cut.reason as AppError).retryable, true);
  assert.equal(registry.serving('a').cut.aborted, false);
});

test('a move that fails leaves the model where it was, serving, and takes no memory', async () => {
  for (const call of ['transferIn', 'transferIn late', 'exportArch']) {
    const { registry, zero, one, load, freeMb, deviceOf } = setUp();
    await load('a');
    (call === 'exportArch' ? zero : one).fails.add(call);
    assert.equal(await codeOf(registry.move('a', [1])), 'device_gone', call);
    assert.equal(deviceOf('a'), 'cpu:0');
    assert.deepEqual([await freeMb(0), await freeMb(1)], [950, 1000]);
    assert.equal(zero.resident.size, 1);
  }
});

test('a move is refused when it cannot be: unknown model or device, no room, still loading', async () => {
  const { registry, zero, load, deviceOf } = setUp([1000, 40]);
  assert.equal(await codeOf(registry.move('a', [1])), 'model_not_loaded');
  const release = hold(zero);
  const loading = load('a');
  assert.equal(await codeOf(registry.move('a', [1])), 'model_loading');
  release();
  await loading;
  assert.equal(await codeOf(registry.move('a', [7])), 'invalid_request');
  assert.equal(await codeOf(registry.move('a', [1])), 'does_not_fit');
  assert.equal(deviceOf('a'), 'cpu:0');
});

test('an owner that dies in the middle of a move: the model goes on there, or comes back here', async () => {
  for (const fails of [false, true]) {
    const { registry, zero, one, load, freeMb } = setUp();
    await load('a');
    const release = hold(one);
    const moving = codeOf(registry.move('a', [1]));
    while (one.calls.length === 0) await turn();
    zero.die();
    if (fails) one.fails.add('transferIn late');
    release();
    assert.equal(await moving, fails ? 'device_gone' : 'none');
    const serving = await registry.whenServing('a', never);
    assert.equal(serving.device.id, fails ? 'cpu:0' : 'cpu:1');
    assert.deepEqual([await freeMb(0), await freeMb(1)], fails ? [950, 1000] : [1000, 950]);
  }
});

test('a model whose move kills the owner there three times stays out when its own dies', async () => {
  const { registry, zero, one, load } = setUp();
  await load('a');
  one.fails.add('transferIn late');
  for (let death = 1; death <= 3; death++) {
    const release = hold(one);
    const moving = codeOf(registry.move('a', [1]));
    while (one.calls.filter((call) => call === 'transferIn').length < death) await turn();
    one.die('signal SIGABRT', false, 'a');
    release();
    assert.equal(await moving, 'device_gone');
    assert.equal((await registry.find('a'))?.status, 'loaded');
  }
  zero.die();
  assert.equal(await codeOf(registry.whenServing('a', never)), 'model_poisoned');
});

test('a model that kills its owner while it is about to move is blamed for it', async () => {
  const { registry, zero, load } = setUp();
  await load('a');
  for (let death = 1; death <= 3; death++) {
    const permit = await registry.serving('a').admission.acquire(null, never);
    const moving = codeOf(registry.move('a', [1]));
    await turn();
    zero.die('signal SIGABRT', true);
    permit.release();
    assert.equal(await moving, death < 3 ? 'model_recovering' : 'model_poisoned');
    if (death < 3) await registry.load(spec('a'));
  }
  assert.equal(await codeOf(registry.whenServing('a', never)), 'model_poisoned');
});

test('an unload in the middle of a move wins, and nothing is left anywhere', async () => {
  for (const phase of ['draining', 'moving']) {
    const { registry, zero, one, load, freeMb } = setUp();
    await load('a');
    const permit = await registry.serving('a').admission.acquire(null, never);
    const release = hold(one);
    const moving = codeOf(registry.move('a', [1]));
    await turn();
    if (phase === 'moving') {
      permit.release();
      while (one.calls.length === 0) await turn();
    }
    const unloading = registry.unload('a');
    await turn();
    permit.release();
    release();
    assert.equal(await moving, 'load_cancelled');
    await unloading;
    assert.deepEqual([zero.resident.size, one.resident.size], [0, 0]);
    assert.deepEqual([await freeMb(0), await freeMb(1)], [1000, 1000]);
    assert.equal(await codeOf(registry.whenServing('a', never)), 'model_not_found');
  }
});

test('a model that is unloaded while it is being reloaded is gone when nothing of it is left', async () => {
  const { registry, zero, load, freeMb } = setUp();
  await load('a');
  const release = hold(zero);
  zero.die();
  while (zero.calls.length < 2) await turn();
  const left = registry.unload('a').then(() => freeMb(0));
  for (let turns = 0; turns < 5; turns++) await turn();
  release();
  assert.equal(await left, 1000);
});

test('a recycled device has its models again, transferred, and others are not touched', async () => {
  const { registry, zero, one, load, freeMb } = setUp();
  await Promise.all([load('a'), load('b'), registry.load({ ...spec('c'), devices: [1] })]);
  const [first, second] = await Promise.all([registry.recycle(0), registry.recycle(0)]);
  assert.deepEqual(
    { ...first, transferred: [...first.transferred].sort() },
    { transferred: ['a', 'b'], reloaded: [], failed: [] },
  );
  assert.equal(second, first);
  assert.deepEqual(zero.calls.filter((call) => call === 'restartOwner' || call === 'load').length, 3);
  assert.deepEqual([zero.resident.size, await freeMb(0), await freeMb(1)], [2, 900, 950]);
  assert.deepEqual(one.calls, ['load']);
  for (const id of ['a', 'b', 'c']) assert.equal(registry.isLoaded(id), true);
});

test('what cannot be exported or transferred is loaded plainly, and requests wait for that', async () => {
  for (const call of ['exportArch', 'transferIn']) {
    const { registry, zero, load, freeMb } = setUp();
    await load('a');
    zero.fails.add(call);
    const recycling = registry.recycle(0);
    const newcomer = registry.whenServing('a', never);
    assert.deepEqual(await recycling, { transferred: [], reloaded: ['a'], failed: [] }, call);
    assert.equal((await newcomer).handle, 2);
    assert.deepEqual([zero.resident.size, await freeMb(0)], [1, 950]);
    assert.equal(zero.calls.at(-1), 'load');
  }
});

test('in a recycle a model serves as soon as it is back, whatever becomes of the others', async () => {
  const { registry, zero, load } = setUp();
  await load('a');
  await load('b');
  let release: () => void = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const transferIn = zero.transferIn.bind(zero);
  zero.transferIn = async (exported, onProgress, signal) => {
    if (exported.spec.modelId === 'b') await held;
    return transferIn(exported, onProgress, signal);
  };
  const recycling = registry.recycle(0);
  assert.equal((await registry.whenServing('a', never)).id, 'a');
  assert.throws(() => registry.serving('b'), { code: 'model_recovering' });
  release();
  assert.deepEqual((await recycling).transferred, ['a', 'b']);
});

test('while its owner is renewed a model is listed with its device and its memory, as one that is loaded', async () => {
  const { registry, zero, load } = setUp();
  await load('a');
  const listed = async () => {
    const row = await registry.find('a');
    return [row?.status, row?.devices, row?.vram_used_mb, row?.vram_estimate_mb];
  };
  const before = await listed();
  assert.notEqual(before[2], null);
  const release = hold(zero);
  const recycling = registry.recycle(0);
  while (!zero.calls.includes('restartOwner')) await turn();
  assert.deepEqual(await listed(), before);
  release();
  await recycling;
  assert.deepEqual(await listed(), before);
});

test('a device that cannot be restarted keeps its models', async () => {
  const { registry, zero, load, freeMb } = setUp();
  await load('a');
  zero.fails.add('restartOwner');
  assert.equal(await codeOf(registry.recycle(0)), 'device_gone');
  assert.equal(registry.serving('a').handle, 1);
  assert.equal(await freeMb(0), 950);
  assert.equal(await codeOf(registry.recycle(9)), 'invalid_request');
});

test('a model unloaded while its device is recycled does not come back', async () => {
  const { registry, zero, load, freeMb } = setUp();
  await load('a');
  await load('b');
  const release = hold(zero);
  const recycling = registry.recycle(0);
  while (!zero.calls.includes('restartOwner')) await turn();
  const unloading = registry.unload('a');
  release();
  const report = await recycling;
  await unloading;
  assert.deepEqual(report, { transferred: ['b'], reloaded: [], failed: ['a'] });
  assert.equal(registry.isLoaded('a'), false);
  assert.deepEqual([zero.resident.size, await freeMb(0)], [1, 950]);
});

test('loads, moves, recycles, unloads and deaths in any order leak no model and no memory', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  const random = mulberry32(seed);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  for (let round = 0; round < 60; round++) {
    const { registry, zero, one, freeMb } = setUp();
    const where = `SEED=${seed} round ${round}`;
    const devices = [zero, one];
    const jobs: Promise<unknown>[] = [];
    const track = (job: Promise<unknown>): void => {
      job.catch(() => {});
      jobs.push(job);
    };
    const permits: { release(): void }[] = [];
    let releases: (() => void)[] = [];
    const actions: (() => unknown)[] = [
      () => track(registry.load({ ...spec(pick(['a', 'b', 'c'])), devices: [pick([0, 1])] })),
      () => track(registry.move(pick(['a', 'b', 'c']), [pick([0, 1])], 5)),
      () => track(registry.move(pick(['a', 'b', 'c']), [pick([0, 1])], 5)),
      () => track(registry.recycle(pick([0, 1]), 5)),
      () => {
        if (random() < 0.2) track(registry.unload(pick(['a', 'b', 'c']), 5));
      },
      () => random() < 0.3 && pick(devices).die(),
      () => random() < 0.5 && releases.push(hold(pick(devices))),
      () => {
        for (const release of releases) release();
        releases = [];
      },
      async () => {
        const serving = await registry
          .whenServing(pick(['a', 'b', 'c']), AbortSignal.timeout(5))
          .catch(() => null);
        const permit = serving?.admission.acquire(null, never).then((got) => permits.push(got));
        permit?.catch(() => {});
      },
      () => permits.pop()?.release(),
      () => {
        const device = pick(devices);
        const call = pick(['transferIn', 'transferIn late', 'exportArch', 'restartOwner', 'load']);
        if (!device.fails.delete(call) && random() < 0.3) device.fails.add(call);
      },
      turn,
      turn,
    ];
    for (let step = 0; step < 50; step++) {
      await pick(actions)();
      for (let turns = pick([0, 1, 5, 40]); turns > 0; turns--) await turn();
    }
    for (const device of devices) device.fails.clear();
    for (const release of releases) release();
    for (const permit of permits) permit.release();
    await Promise.allSettled(jobs);
    for (const id of ['a', 'b', 'c']) await registry.whenServing(id, never).catch(() => {});
    // What is loaded is where it says, what is nowhere takes nothing.
    for (const [at, device] of devices.entries()) {
      const held = (await registry.list()).filter(
        ({ status, devices }) => status === 'loaded' && devices[0] === at,
      );
      const names = (specs: Iterable<LoadSpec>) => [...specs].map(({ modelId }) => modelId).sort();
      assert.deepEqual(names(device.resident.values()), held.map(({ id }) => id).sort(), where);
      assert.equal(await freeMb(at), 1000 - 50 * held.length, where);
    }
    for (const { id } of registry.loads()) {
      const { device, handle } = registry.serving(id);
      assert.ok(
        (device as unknown as MovingDevice).resident.has(handle),
        `${where}: ${id} has a dead handle`,
      );
    }
    await registry.close(5);
    assert.deepEqual([zero.resident.size, one.resident.size], [0, 0], where);
    assert.deepEqual([await freeMb(0), await freeMb(1)], [1000, 1000], where);
  }
});

function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
