import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadedArch, LoadSpec, ModelFacts } from 'cortex-core/wire/inference';
import { modelSpecSchema, type UseMark } from 'cortex-core/wire/neuron';
import { Admission } from '../admission/admission.ts';
import type { Device, OwnerDeath } from '../device/device.ts';
import { chooseQuant, findByName, groupShards } from './catalogue.ts';
import type { Gate } from './gate.ts';
import { ModelLoader } from './loader.ts';

import { Placement } from './placement.ts';
import { checkModelFiles } from './preflight.ts';
import { ModelRegistry } from './registry.ts';
import { ModelSources } from './sources.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const clock: Clock = { ...systemClock, sleep: async () => {} };

/** Loads at once unless told to hold; dies on demand. */
class FakeDevice {
  readonly id = 'cpu';
  readonly state = 'ready';
  readonly loads: LoadSpec[] = [];
  readonly dropped: number[] = [];
  hold: Promise<void> = Promise.resolve();
  memoryMb = 50;
  during: () => void = () => {};
  #listener: (death: OwnerDeath) => void = () => {};

  async load(spec: LoadSpec, _onProgress: unknown, signal?: AbortSignal): Promise<LoadedArch> {
    this.loads.push(spec);
    this.during();
    await this.hold;
    signal?.throwIfAborted();
    const facts = {
      context: spec.context,
      slots: spec.slots,
      memoryMb: this.memoryMb,
      namedTemplates: {},
      chatTemplate: null,
    };
    return { handle: this.loads.length, facts: facts as unknown as ModelFacts };
  }

  async dropArch(handle: number): Promise<void> {
    this.dropped.push(handle);
  }

  onOwnerDeath(listener: (death: OwnerDeath) => void): () => void {
    this.#listener = listener;
    return () => {};
  }

  die(busy: boolean, loading: string | null = null): void {
    const handle = this.loads.length;
    const busyHandles = busy ? [handle] : [];
    const death = { deviceId: 'cpu', cause: 'test', lostHandles: [handle], busyHandles, stderrTail: [] };
    this.#listener({ ...death, loading });
  }
}

function setUp(dir: string, budgetMb = 1000): { registry: ModelRegistry; device: FakeDevice } {
  const config = neuronConfigSchema.parse({
    engine: { prefix_cache_mb: 0, flash_attention: false },
    models: { dirs: [dir], hf_cache: join(dir, 'none') },
  });
  const device = new FakeDevice();
  const slots = [{ indices: [0], kind: 'cpu', device: device as unknown as Device, budgetMb }];
  const sources = new ModelSources(config.models, { fetch, clock }, {});
  const loader = new ModelLoader(sources, new Placement(slots), config.engine);
  return {
    registry: new ModelRegistry({ config, slots, sources, loader, createGate, clock, log: silentLog }),
    device,
  };
}

const gateLimits = { maxInFlight: 4, maxQueueDepth: 8, maxWaitMs: 1000, maxPerPrincipal: 0 };
const createGate = (): Gate => new Admission(gateLimits, systemClock);
const spec = (model_id: string) => modelSpecSchema.parse({ model_id });
const code = (thrown: unknown): string => (thrown instanceof AppError ? thrown.code : String(thrown));
const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'none';
  } catch (error) {
    return code(error);
  }
};

describe('ModelRegistry', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-'));
    await copyFile(tiny, join(dir, 'a-Q8_0.gguf'));
  });
  after(() => rm(dir, { recursive: true }));

  it('makes one load of many calls, by the name without its quantisation too', async () => {
    const { registry, device } = setUp(dir);
    await Promise.all([registry.load(spec('a')), registry.load(spec('a')), registry.load(spec('a'))]);
    assert.equal(device.loads.length, 1);
    assert.equal(device.loads[0]?.context, 4096);
    assert.equal(
      await registry.load(spec('a')).catch((error: Error) => error.message),
      "model 'a' already loaded",
    );
  });

  it('unloadUnused() leaves a model that any request named since, or that was loaded again', async () => {
    const { registry } = setUp(dir);
    const never = new AbortController().signal;
    const use = () => registry.loads()[0]?.use ?? assert.fail('it tells nothing of its use');
    const tryUnload = (since: UseMark) => registry.unloadUnused('a', since).then(() => 'gone', code);
    await registry.load(spec('a'));
    const { load_id, requests, idle_secs, loaded_secs } = use();
    assert.deepEqual([requests, idle_secs], [0, null]);
    assert.ok(loaded_secs >= 0);
    const before = { load_id, requests };
    const { admission } = await registry.whenServing('a', never);
    // it names the model, and is not admitted yet: its prompt is being read
    assert.equal(await tryUnload(before), 'model_in_use');
    assert.equal(await tryUnload({ load_id, requests: 1 }), 'model_in_use', 'it is on its way to a slot');
    const permit = await admission.acquire(null, never);
    const asked = { load_id, requests: use().requests };
    assert.deepEqual([asked.requests, use().idle_secs], [1, 0]);
    assert.equal(await tryUnload(asked), 'model_in_use', 'a request runs');
    permit.release();
    assert.ok((use().idle_secs ?? -1) >= 0);
    assert.equal(await tryUnload(before), 'model_in_use');
    assert.equal(await tryUnload(asked), 'gone');
    await registry.load(spec('a'));
    assert.equal(await tryUnload({ ...before, requests: use().requests }), 'model_in_use', 'another load');
    assert.equal(await tryUnload({ load_id: use().load_id, requests: 0 }), 'gone');
    assert.equal(await tryUnload(before), 'model_not_loaded');
    await registry.close(0);
  });

  it('cancelLoad() ends a load when its memory is free, and leaves a model that serves', async () => {
    const { registry, device } = setUp(dir);
    let release: () => void = () => {};
    device.hold = new Promise((resolve) => {
      release = resolve;
    });
    const load = registry.load(spec('a')).catch(code);
    let isOver = false;
    const cancelling = registry.cancelLoad('a').finally(() => {
      isOver = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(isOver, false);
    release();
    assert.equal(await cancelling, true);
    assert.equal(await load, 'load_cancelled');
    assert.equal(await registry.cancelLoad('a'), false);
    await registry.load(spec('a'));
    assert.equal(await registry.cancelLoad('a'), false);
    assert.ok(registry.isLoaded('a'));
    await registry.close(0);
  });

  it('lists what comes up with the size that its file says', async () => {
    const { registry, device } = setUp(dir);
    const [onDisk] = await registry.list();
    assert.notEqual(onDisk?.vram_estimate_mb ?? null, null);
    let release: () => void = () => {};
    device.hold = new Promise((resolve) => {
      release = resolve;
    });
    const load = registry.load(spec('a-Q8_0'));
    const [coming] = await registry.list();
    assert.equal(coming?.status, 'loading');
    assert.equal(coming?.vram_estimate_mb, onDisk?.vram_estimate_mb);
    release();
    await load;
    await registry.close(0);
  });

  it('cancels a load by unload, and frees what came late', async () => {
    const { registry, device } = setUp(dir);
    let release: () => void = () => {};
    device.hold = new Promise((resolve) => {
      release = resolve;
    });
    const load = registry.load(spec('a')).catch(code);
    assert.equal(
      codeOf(() => registry.serving('a')),
      'model_loading',
    );
    const unloading = registry.unload('a');
    release();
    assert.equal(await load, 'load_cancelled');
    await unloading;
    assert.equal(
      codeOf(() => registry.serving('a')),
      'model_not_found',
    );
    device.hold = Promise.resolve();
    await registry.load(spec('a'));
    assert.equal(registry.isLoaded('a'), true);
  });

  it('reloads after a death, and keeps out a model that was at work in three', async () => {
    const { registry, device } = setUp(dir);
    await registry.load(spec('a'));
    for (let death = 1; death <= 4; death++) {
      device.die(false);
      assert.equal(
        codeOf(() => registry.serving('a')),
        'model_recovering',
      );
      await registry.load(spec('a'));
    }
    for (let death = 1; death <= 2; death++) {
      device.die(true);
      await registry.whenServing('a', new AbortController().signal).catch(() => {});
      await registry.load(spec('a')).catch(() => {});
      assert.equal(registry.isLoaded('a'), true);
    }
    device.die(true);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(
      codeOf(() => registry.serving('a')),
      'model_poisoned',
    );
    assert.equal((await registry.list())[0]?.status, 'poisoned');
    await registry.load(spec('a'));
    assert.equal(registry.isLoaded('a'), true);
  });

  it('keeps out a model whose reload kills the owner three times, and counts no other death for it', async () => {
    for (const [loading, status, loads] of [
      ['a', 'poisoned', 4],
      ['another', 'failed', 6],
    ] as const) {
      const { registry, device } = setUp(dir);
      await registry.load(spec('a'));
      device.during = () => {
        device.die(false, loading);
        throw new AppError('device_gone', 'the owner died');
      };
      device.die(false);
      await registry.load(spec('a')).catch(() => {});
      assert.equal((await registry.list())[0]?.status, status);
      assert.equal(device.loads.length, loads);
    }
  });

  it('keeps out a model whose loads kill the owner three times, also when each was the first', async () => {
    const { registry, device } = setUp(dir);
    let isDeadly = true;
    device.during = () => {
      if (!isDeadly) return;
      device.die(false, 'a');
      throw new AppError('device_gone', 'the owner died');
    };
    for (const expected of ['device_gone', 'device_gone', 'model_poisoned']) {
      await assert.rejects(registry.load(spec('a')), (thrown) => code(thrown) === expected);
    }
    assert.equal((await registry.list())[0]?.status, 'poisoned');
    // Asked for again, it has three more.
    for (const expected of ['device_gone', 'device_gone']) {
      await assert.rejects(registry.load(spec('a')), (thrown) => code(thrown) === expected);
      assert.equal((await registry.list())[0]?.status, 'available');
    }
    isDeadly = false;
    await registry.load(spec('a'));
    assert.equal(registry.isLoaded('a'), true);
  });

  it('reloads with fewer slots after a death where none were named and the first load took more', async () => {
    const { registry, device } = setUp(dir, 145);
    device.memoryMb = 200;
    await registry.load(spec('a'));
    device.die(false);
    await registry.load(spec('a')); // waits for it
    const [first, second] = device.loads.map(({ slots }) => slots);
    assert.equal(first, 4);
    assert.ok(second && second < 4, String(second));
    assert.equal(registry.serving('a').facts.slots, second);
  });

  it('counts the memory of what is loaded, and gives it back', async () => {
    const { registry } = setUp(dir, 165);
    await registry.load(spec('a')); // the device says it took 50 MiB
    const second = await registry.load({ ...spec('a-Q8_0'), slots: 5 }).catch((error: AppError) => error);
    assert.equal(code(second), 'insufficient_vram');
    assert.match((second as AppError).message, /needs \d+ MiB on cpu, 115 MiB free of 165 MiB budget/);
    await registry.unload('a');
    await registry.load({ ...spec('a-Q8_0'), slots: 5 });
  });

  it('lets a running request end before it drops the model', async () => {
    const { registry, device } = setUp(dir);
    await registry.load(spec('a'));
    const permit = await registry.serving('a').admission.acquire(null, new AbortController().signal);
    const unloading = registry.unload('a');
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(device.dropped, []);
    permit.release();
    await unloading;
    assert.deepEqual(device.dropped, [1]);
  });

  it('does not plan a load by what it took with other caches', async () => {
    const { registry } = setUp(dir, 145);
    await registry.load(spec('a')); // the device says it took 50 MiB
    await registry.unload('a');
    const wide = { ...spec('a'), slots: 4, cache_type_k: 'f32', cache_type_v: 'f32' };
    assert.equal(await registry.load(wide).catch(code), 'does_not_fit');
  });

  it('refuses a header with impossible numbers and a link to itself', async () => {
    const file = join(dir, 'odd.gguf');
    const u64 = (value: bigint): Buffer => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigInt64LE(value);
      return bytes;
    };
    const u32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
    const magic = Buffer.concat([Buffer.from('GGUF'), u32(3)]);
    const headers = [
      Buffer.concat([magic, u64(-1n), u64(1n)]),
      Buffer.concat([magic, u64(0n), u64(1n), u64(-9n)]),
      Buffer.concat([magic, u64(0n), u64(1n), u64(1n), Buffer.from('k'), u32(9), u32(4), u64(-400n)]),
    ];
    for (const [at, header] of headers.entries()) {
      await writeFile(file, Buffer.concat([header, Buffer.alloc(400)]));
      const error = await checkModelFiles([file]).catch((thrown: unknown) => thrown);
      assert.equal(code(error), 'invalid_model_file', `header ${at}`);
      assert.match((error as AppError).message, /impossible number/);
    }
    await rm(file);
    await symlink('odd.gguf', file);
    assert.equal(await checkModelFiles([file]).catch(code), 'invalid_model_file');
    await rm(file);
  });

  it('survives a file cut anywhere', async () => {
    const file = join(dir, 'cut.gguf');
    await copyFile(tiny, file);
    for (const bytes of [3_000_000, 64_600, 64_000, 5000, 25, 9, 3, 0]) {
      await truncate(file, bytes);
      assert.equal(await checkModelFiles([file]).catch(code), 'invalid_model_file', `${bytes} bytes`);
    }
    await rm(file);
  });
});

describe('catalogue', () => {
  const entries = new Map(
    groupShards([
      '/m/Big-Q4_K_M-00002-of-00002.gguf',
      '/m/Big-Q4_K_M-00001-of-00002.gguf',
      '/m/Big-Q8_0-00001-of-00002.gguf',
      '/m/Small.Q4_1.gguf',
      '/m/mmproj-Big.gguf',
    ]).map((entry) => [entry.name, entry]),
  );

  it('groups shards and sees what is missing', () => {
    assert.deepEqual([...entries.keys()], ['Big-Q4_K_M', 'Big-Q8_0', 'Small.Q4_1']);
    assert.equal(entries.get('Big-Q4_K_M')?.complete, true);
    assert.equal(entries.get('Big-Q8_0')?.complete, false);
  });

  it('finds by name, by name and quantisation, and never by path', () => {
    const cases: [string, string | null, string | null][] = [
      ['Small.Q4_1', null, 'Small.Q4_1'],
      ['small', null, 'Small.Q4_1'],
      ['big', null, 'Big-Q4_K_M'],
      ['big:q8_0', null, 'Big-Q8_0'],
      ['big', 'q8_0', 'Big-Q8_0'],
      ['small', 'Q8_0', null],
      ['/m/Small.Q4_1.gguf', null, null],
    ];
    for (const [id, quant, name] of cases)
      assert.equal(findByName(entries, id, quant)?.name ?? null, name, id);
  });
});

describe('chooseQuant()', () => {
  it('takes the quantisation asked for before one whose name contains it', () => {
    const entries = groupShards(['/m/x-BF16.gguf', '/m/x-F16.gguf', '/m/x-Q4_K_M.gguf']);
    assert.equal(chooseQuant(entries, 'f16')?.name, 'x-F16');
    assert.equal(chooseQuant(entries, 'q4_k')?.name, 'x-Q4_K_M');
    assert.equal(chooseQuant(entries, 'Q8_0'), null);
  });
});
