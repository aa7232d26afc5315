import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type NeuronConfig, neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadedArch, LoadSpec, ModelFacts } from 'cortex-core/wire/inference';
import { modelSpecSchema } from 'cortex-core/wire/neuron';
import type { Device } from '../device/device.ts';
import { LoadMeter } from './load-meter.ts';
import { planLoad } from './load-plan.ts';
import { type LoadedModel, ModelLoader } from './loader.ts';
import { MemoryCorrections } from './memory-corrections.ts';
import { Placement } from './placement.ts';
import { checkModelFiles } from './preflight.ts';
import { ModelSources } from './sources.ts';
import { families, predicting, writeSyntheticGguf } from './synthetic-gguf.test.kit.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));

/** Takes `memoryMb` of every load's context, or what the test says. */
class FakeDevice {
  readonly id: string;
  readonly state = 'ready';
  readonly loads: LoadSpec[] = [];
  facts: (spec: LoadSpec) => object = () => ({ memoryMb: 0 });
  readonly totalMb: number;

  constructor(id: string, totalMb = 10_000) {
    this.id = id;
    this.totalMb = totalMb;
  }

  async load(spec: LoadSpec): Promise<LoadedArch> {
    this.loads.push(spec);
    return { handle: this.loads.length, facts: this.facts(spec) as unknown as ModelFacts };
  }

  async queryVram() {
    return { freeMb: this.totalMb, totalMb: this.totalMb };
  }

  onOwnerDeath(): () => void {
    return () => {};
  }

  async shutdown(): Promise<void> {}
}

interface Bench {
  readonly loader: ModelLoader;
  readonly devices: readonly FakeDevice[];
  readonly group: FakeDevice;
  readonly meter: LoadMeter;
  load(over?: object): Promise<LoadedModel>;
}

function bench(
  budgets: readonly (number | { readonly totalMb: number })[],
  engine: Partial<NeuronConfig['engine']> = {},
  corrections = new MemoryCorrections(null, silentLog),
  kind = 'cpu',
  dirs: readonly string[] = [dirname(tiny)],
): Bench {
  const config = neuronConfigSchema.parse({
    engine,
    models: { dirs, hf_cache: join(tmpdir(), 'no-such-hub') },
  });
  const devices = budgets.map((budget, at) => {
    const totalMb = typeof budget === 'number' ? undefined : budget.totalMb;
    return new FakeDevice(at === 0 ? kind : `${kind}:${at}`, totalMb);
  });
  const group = new FakeDevice('group');
  const slots = budgets.map((budget, at) => {
    const slot = { indices: [at], kind, device: devices[at] as unknown as Device };
    return typeof budget === 'number'
      ? { ...slot, budgetMb: budget }
      : { ...slot, ...budget, budgetMb: null };
  });
  const placement = new Placement(slots, { openGroup: () => group as unknown as Device });
  const sources = new ModelSources(config.models, { fetch, clock: systemClock }, {});
  const loader = new ModelLoader(sources, placement, config.engine, corrections);
  const meter = new LoadMeter('tiny', systemClock);
  const load = (over: object = {}): Promise<LoadedModel> => {
    const spec = modelSpecSchema.parse({ model_id: 'tiny', ...over });
    return loader.load(spec, tiny, meter, new AbortController().signal);
  };
  return { loader, devices, group, meter, load };
}

const errorOf = async (load: Promise<LoadedModel>): Promise<AppError> => {
  const error = await load.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (error instanceof AppError) return error;
  throw new Error(`no refusal: ${String(error)}`);
};

describe('ModelLoader', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'loader-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  it('takes the largest context that fits for "auto", and one step more does not fit', async () => {
    const { load, devices } = bench([100], { prefix_cache_mb: 0, slots: 4 });
    const { reservation } = await load({ context: 'auto' });
    const context = devices[0]?.loads[0]?.context ?? 0;
    assert.ok(context > 256 && context < 8192 && context % 256 === 0, String(context));
    assert.ok(reservation.estimateMb <= 100);
    reservation.release();
    const error = await errorOf(load({ context: context + 256 }));
    assert.equal(error.code, 'does_not_fit');
    assert.match(
      error.message,
      /^model "tiny" needs \d+ MiB on cpu, 100 MiB free of 100 MiB budget \(weights 4 \+ KV \d+ \+ compute \d+\); /,
    );
    const { required_mb, free_mb, total_mb } = error.extras;
    assert.deepEqual([typeof required_mb, free_mb, total_mb], ['number', 100, 100]);
  });

  it('gives "auto" the whole training context where there is room, and less beside another model', async () => {
    const { load, devices } = bench([1200], { prefix_cache_mb: 0, context: 'auto' });
    await load();
    assert.equal(devices[0]?.loads[0]?.context, 32_768);
    await load();
    const second = devices[0]?.loads[1]?.context ?? 0;
    assert.ok(second >= 256 && second < 32_768, String(second));
  });

  it('says what would help where nothing fits: what is the least already is not among it', async () => {
    const { load, devices } = bench([60]);
    for (const [over, expected] of [
      [{ context: 'auto', slots: 64 }, 'a smaller quantisation or fewer slots'],
      [{ context: 8192, slots: 64 }, 'a smaller quantisation, a smaller context or fewer slots'],
      [{ context: 8192 }, 'a smaller quantisation or a smaller context'],
    ] as const) {
      const refused = await errorOf(load(over));
      assert.equal(refused.code, 'does_not_fit');
      assert.equal(/; choose (.*)$/.exec(refused.message)?.[1], expected);
    }
    const cached = await errorOf(load({ context: 256, prefix_cache_mb: 1000 }));
    assert.match(cached.message, /prefix cache 1000\); ask for less "prefix_cache_mb"$/);
    assert.equal(devices[0]?.loads.length, 0);
  });

  it('takes fewer slots by default where not even the empty device has room for four, as estimated', async () => {
    const { load, loader, devices } = bench([75], { prefix_cache_mb: 0, context: 4096 });
    const estimate = await loader.estimateMb([tiny]);
    const { reservation } = await load();
    assert.ok(devices[0]?.loads[0]?.slots === 1 || devices[0]?.loads[0]?.slots === 2);
    assert.equal(devices[0]?.loads[0]?.context, 4096);
    assert.equal(reservation.estimateMb, estimate);
    // One that is only full is not squeezed: a model leaves for it.
    assert.equal((await errorOf(load())).code, 'insufficient_vram');
    reservation.release();
    // Who names a number gets it or nothing.
    assert.equal((await errorOf(load({ slots: 4 }))).code, 'does_not_fit');
    const fixed = bench([75], { prefix_cache_mb: 0, context: 4096, slots: 4 });
    assert.equal((await errorOf(fixed.load())).code, 'does_not_fit');
    assert.ok(((await fixed.loader.estimateMb([tiny])) ?? 0) > 75);
    const wide = bench([1000], { prefix_cache_mb: 0 });
    await wide.load();
    assert.equal(wide.devices[0]?.loads[0]?.slots, 4);
  });

  it('lists a model whose context is "auto" with what its load would take of the empty device', async () => {
    const { load, loader } = bench([100], { prefix_cache_mb: 0, context: 'auto' });
    const estimate = await loader.estimateMb([tiny]);
    assert.ok(estimate !== null && estimate <= 100);
    assert.equal((await load()).reservation.estimateMb, estimate);
  });

  it('lists a model with what its load takes of a GPU that no load has measured', async () => {
    const engine = { prefix_cache_mb: 0, context: 'auto' } as const;
    const { load, loader } = bench([{ totalMb: 200 }], engine, undefined, 'cuda');
    const before = await loader.estimateMb([tiny]);
    assert.ok(before !== null && before <= 200, String(before));
    assert.equal((await load()).reservation.estimateMb, before);
  });

  it('lets exactly one of several loads have the last memory', async () => {
    for (const count of [2, 3]) {
      const { load } = bench([200]);
      const all = await Promise.allSettled(Array.from({ length: count }, () => load()));
      const codes = all.map((each) => (each.status === 'fulfilled' ? 'loaded' : each.reason.code));
      assert.deepEqual(codes.sort(), [...Array(count - 1).fill('insufficient_vram'), 'loaded']);
    }
  });

  it('plans the next load by what the last one took, at other contexts and after a restart too', async () => {
    const file = join(dir, 'state.json');
    const corrections = new MemoryCorrections(file, silentLog);
    const first = bench([10_000], { prefix_cache_mb: 0 }, corrections);
    // As an architecture whose cache is twice what the header says.
    const double = (spec: LoadSpec) => ({
      memoryMb: 1,
      memoryParts: { weightsMb: 3, contextMb: 2 * 0.022 * (spec.context ?? 0) },
    });
    if (first.devices[0]) first.devices[0].facts = double;
    const loaded = await first.load({ context: 4096 });
    const estimated = loaded.reservation.estimateMb;
    assert.ok(loaded.reservation.mb > estimated + 50, `${loaded.reservation.mb} after ${estimated}`);
    await corrections.written();

    const reopened = new MemoryCorrections(file, silentLog);
    await reopened.read();
    const second = bench([10_000], { prefix_cache_mb: 0 }, reopened);
    if (second.devices[0]) second.devices[0].facts = double;
    assert.equal((await second.load({ context: 4096 })).reservation.estimateMb, loaded.reservation.mb);
    const wider = await second.load({ context: 8192 });
    const missedMb = wider.reservation.mb - wider.reservation.estimateMb;
    assert.ok(Math.abs(missedMb) <= 0.1 * wider.reservation.mb, `missed by ${missedMb} MiB`);
    // Another shape is another load.
    const quantized = await second.load({ context: 4096, slots: 1 });
    assert.ok(quantized.reservation.estimateMb < estimated);
  });

  it('shrinks the prefix cache to a quarter of what is left, unless the load asks for it', async () => {
    const { load, devices } = bench([1000]);
    const first = await load();
    const left = 1000 - (first.reservation.estimateMb - (devices[0]?.loads[0]?.prefixCacheMb ?? 0));
    assert.equal(devices[0]?.loads[0]?.prefixCacheMb, Math.floor(left / 4));
    first.reservation.release();
    const firm = await load({ prefix_cache_mb: 800 });
    assert.equal(devices[0]?.loads[1]?.prefixCacheMb, 800);
    assert.ok(firm.reservation.mb > 800);
    firm.reservation.release();
    assert.equal((await errorOf(load({ prefix_cache_mb: 950 }))).code, 'does_not_fit');
    await load({ prefix_cache_mb: 0 });
    assert.equal(devices[0]?.loads[2]?.prefixCacheMb, 0);
  });

  it('counts "auto" and a wanted prefix cache together', async () => {
    const { load, devices } = bench([150]);
    const { reservation } = await load({ context: 'auto', prefix_cache_mb: 60 });
    assert.ok(reservation.mb <= 150);
    assert.equal(devices[0]?.loads[0]?.prefixCacheMb, 60);
  });

  it('passes speculation on: from the load, else from the configuration', async () => {
    const { load, devices } = bench([9000], { speculation: 'off' });
    await load();
    await load({ speculation: 'auto' });
    assert.deepEqual(
      devices[0]?.loads.map(({ speculation }) => speculation),
      ['off', 'ngram'],
    );
  });

  it('sends a load of two devices to their group, with the parts that the books have', async () => {
    const { load, group } = bench([600, 200]);
    const { slot, reservation } = await load({ devices: [0, 1] });
    assert.deepEqual(slot.indices, [0, 1]);
    const [spec] = group.loads;
    assert.equal(spec?.splitMode, 'layer');
    assert.deepEqual(spec?.tensorSplit, [0.75, 0.25]);
    reservation.release();
    await load({ tensor_parallel: 2, split_mode: 'row' });
    assert.deepEqual(group.loads[1]?.tensorSplit, [0.5, 0.5]);
  });

  it('gives back the memory of a load that failed, on a device and in a group', async () => {
    const { load, devices, group } = bench([160, 160], { prefix_cache_mb: 0 });
    const fail = (): never => {
      throw new AppError('load_failed', 'no');
    };
    for (const device of [...devices, group]) device.facts = fail;
    for (const over of [{ devices: [0] }, { devices: [0, 1] }]) {
      assert.equal((await errorOf(load(over))).code, 'load_failed');
    }
    for (const device of devices) device.facts = () => ({ memoryMb: 0 });
    assert.ok((await load({ devices: [0] })).reservation.mb > 80);
  });

  it('goes to the next device where the best is full', async () => {
    const { load, devices } = bench([300, 300], {}, undefined, 'cuda');
    const both = await Promise.all([load(), load()]);
    assert.deepEqual(both.map(({ slot }) => slot.indices[0]).sort(), [0, 1]);
    assert.deepEqual(
      devices.map(({ loads }) => loads.length),
      [1, 1],
    );
    const error = await errorOf(load());
    assert.equal(error.code, 'insufficient_vram');
  });

  it('does not learn from a figure that another program made', async () => {
    const { load, devices } = bench([10_000], { prefix_cache_mb: 0 });
    const [device] = devices;
    for (const memoryMb of [9000, 3]) {
      if (device) device.facts = () => ({ memoryMb });
      const { reservation } = await load();
      assert.equal(reservation.mb, reservation.estimateMb);
      reservation.release();
    }
  });

  it('leaves the host out of a load that a GPU holds, and counts layers that stay there', async () => {
    const { load, devices } = bench([10_000, 10_000], {}, undefined, 'cuda');
    const whole = await load();
    const partly = await load({ gpu_layers: 2 });
    assert.ok(partly.reservation.estimateMb < whole.reservation.estimateMb);
    assert.equal(whole.hostLayersMb, 0);
    assert.ok(partly.hostLayersMb > 0);
    const all = devices.flatMap((device) => device.loads);
    assert.deepEqual(all.map(({ gpuLayers }) => gpuLayers).sort(), [2, null]);
  });

  it('drafts with prediction layers where a file has them, they fit and nothing else is asked', async () => {
    const file = join(dir, 'predicting.gguf');
    await writeSyntheticGguf(file, predicting);
    const incomplete = join(dir, 'incomplete.gguf');
    const tensors = predicting.tensors.filter(([name]) => name !== 'blk.7.nextn.hnorm.weight');
    await writeSyntheticGguf(incomplete, { ...predicting, tensors });
    const unknown = join(dir, 'unknown.gguf');
    await writeSyntheticGguf(unknown, { ...predicting, architecture: 'exaone-moe' });
    const alone = join(dir, 'alone.gguf');
    const last = predicting.tensors.filter(([name]) => !/^blk\.[0-5]\./.test(name));
    await writeSyntheticGguf(alone, { ...predicting, tensors: last });
    const { meter } = bench([10]);
    const loadOn = async (budgetMb: number, path: string, over: object = {}, config: object = {}) => {
      const { loader, devices } = bench([budgetMb], { prefix_cache_mb: 0, ...config });
      const spec = modelSpecSchema.parse({ model_id: 'predicting', context: 4096, ...over });
      const loaded = await loader.load(spec, path, meter, new AbortController().signal);
      return { mb: loaded.reservation.estimateMb, speculation: devices[0]?.loads[0]?.speculation };
    };
    const [own, plain] = [await loadOn(10_000, file), await loadOn(10_000, file, { speculation: 'ngram' })];
    const estimateOn = (budgetMb: number, config: object = {}): Promise<number | null> =>
      bench([budgetMb], { prefix_cache_mb: 0, ...config }).loader.estimateMb([file]);
    assert.deepEqual([own.speculation, plain.speculation], ['mtp', 'ngram']);
    // Two layers of 4 slots, 4096 cells of 512 keys and values: 64 MiB, and buffers.
    assert.ok(own.mb > plain.mb + 64, `${own.mb} after ${plain.mb}`);
    assert.deepEqual(await loadOn(own.mb, file), own);
    // A model that fits without them is never refused because of them.
    assert.deepEqual(await loadOn(own.mb - 1, file), plain);
    // It is listed with what its load would take.
    assert.equal(await estimateOn(own.mb), own.mb);
    assert.equal(await estimateOn(own.mb - 1), plain.mb);
    assert.equal(await estimateOn(10_000, { speculation: 'ngram' }), plain.mb);
    const others = [
      await loadOn(10_000, incomplete),
      await loadOn(10_000, unknown),
      await loadOn(10_000, file, {}, { ubatch: 4 }),
      await loadOn(10_000, file, {}, { speculation: 'ngram' }),
      await loadOn(10_000, file, { speculation: 'off' }),
      await loadOn(10_000, file, { speculation: 'auto' }, { speculation: 'off' }),
    ];
    assert.deepEqual(
      others.map(({ speculation }) => speculation),
      ['ngram', 'ngram', 'ngram', 'ngram', 'off', 'mtp'],
    );
    const error = await errorOf(
      bench([10_000]).loader.load(
        modelSpecSchema.parse({ model_id: 'alone' }),
        alone,
        meter,
        new AbortController().signal,
      ),
    );
    assert.equal(error.code, 'invalid_model_file');
    assert.match(
      error.message,
      /^alone\.gguf is not usable: it holds a model's prediction layers alone; load/,
    );
  });

  it('counts prediction layers on the host where no layer but the output is on the GPU', async () => {
    const file = join(dir, 'placed.gguf');
    await writeSyntheticGguf(file, predicting);
    const checked = await checkModelFiles([file]);
    const target = { id: 'cuda', splitMode: 'none', members: [{ kind: 'cuda' }] } as const;
    const { engine } = neuronConfigSchema.parse({});
    const added = [0, 1, 2].map((gpu_layers) => {
      const [plain, own] = ([null, 'mtp'] as const).map((drafter) =>
        planLoad(checked, { gpu_layers }, engine, target, 'model', drafter),
      );
      assert.ok(plain && own);
      return {
        host: own.hostMbAt(4096) > plain.hostMbAt(4096),
        device: own.estimateAt(4096).totalMb > plain.estimateAt(4096).totalMb,
      };
    });
    const [host, device] = [
      { host: true, device: false },
      { host: false, device: true },
    ];
    assert.deepEqual(added, [host, host, device]);
  });

  it('counts a model that drafts: in the estimate, in a refusal, in "auto" and in the progress', async () => {
    const { load, devices, meter } = bench([10_000], { prefix_cache_mb: 0 });
    const plain = await load();
    const alone = plain.reservation.estimateMb;
    const both = await load({ draft_model: 'cortex-tiny' });
    assert.deepEqual(
      devices[0]?.loads.map(({ draftFile }) => draftFile),
      [null, tiny],
    );
    // It is the same file, of which 32 rows of logits less are wanted.
    const drafting = both.reservation.estimateMb - alone;
    assert.ok(drafting <= alone && drafting >= alone - 4, `${drafting} MiB beside ${alone}`);
    assert.equal(meter.progress.bytes_total, 2 * statSync(tiny).size);
    assert.equal(meter.progress.bytes_done, 0);

    const tight = bench([alone + drafting - 1], { prefix_cache_mb: 0, slots: 4 });
    const error = await errorOf(tight.load({ draft_model: 'cortex-tiny' }));
    assert.equal(error.code, 'does_not_fit');
    assert.match(error.message, new RegExp(`needs ${alone + drafting} MiB on cpu, ${alone + drafting - 1} `));
    assert.match(error.message, /\(weights 7 \+ KV \d+ \+ compute \d+\)/);
    await tight.load({ draft_model: 'cortex-tiny', context: 'auto' });
    const context = tight.devices[0]?.loads[0]?.context ?? 0;
    assert.ok(context < 4096 && context >= 3584, String(context));
  });

  it('remembers what a load took with a draft model apart from what it took without', async () => {
    const { load, devices } = bench([10_000], { prefix_cache_mb: 0 });
    const plain = (await load()).reservation.estimateMb;
    const before = (await load({ draft_model: 'cortex-tiny' })).reservation.estimateMb;
    const parts = { memoryMb: 1, memoryParts: { weightsMb: 7, contextMb: 400 } };
    if (devices[0]) devices[0].facts = () => parts;
    await load({ draft_model: 'cortex-tiny' });
    if (devices[0]) devices[0].facts = () => ({ memoryMb: 0 });
    assert.ok((await load({ draft_model: 'cortex-tiny' })).reservation.estimateMb > before + 100);
    assert.equal((await load()).reservation.estimateMb, plain);
  });

  it('counts the layers of a draft model that stay on the host beside a GPU', async () => {
    const { load, devices } = bench([10_000], {}, undefined, 'cuda');
    const whole = await load({ draft_model: 'cortex-tiny' });
    const partly = await load({ draft_model: 'cortex-tiny', gpu_layers: 2 });
    assert.ok(partly.reservation.estimateMb < whole.reservation.estimateMb);
    const target = { id: 'cuda', splitMode: 'none', members: [{ kind: 'cuda' }] } as const;
    const { engine } = neuronConfigSchema.parse({});
    const checked = await checkModelFiles([tiny]);
    const draft = { file: tiny, identity: 'draft', checked };
    const [alone, both] = [null, draft].map((each) =>
      planLoad(checked, { gpu_layers: 2 }, engine, target, 'model', each).hostMbAt(4096),
    );
    assert.ok(alone && both && both > 1.8 * alone && both <= 2 * alone, `${both} beside ${alone}`);
    assert.equal(devices[0]?.loads.length, 2);
  });

  it('refuses a draft model that could not draft, before the owner hears of it', async () => {
    const vocab_size = 2048; // of cortex-tiny
    const { mamba2, llama } = families;
    assert.ok(mamba2 && llama);
    await writeSyntheticGguf(join(dir, 'other.gguf'), llama);
    const write = (name: string, model: typeof llama, over: object): Promise<void> =>
      writeSyntheticGguf(join(dir, name), { ...model, metadata: { ...model.metadata, ...over } });
    await write('recurrent.gguf', mamba2, { vocab_size });
    await write('encoder.gguf', llama, { vocab_size, pooling_type: 1 });
    writeFileSync(join(dir, 'broken.gguf'), 'no model');
    const { load, loader, meter, devices } = bench([10_000], {}, undefined, 'cpu', [dir]);
    const cases: readonly (readonly [object, string, RegExp])[] = [
      [
        { draft_model: 'other' },
        'invalid_request',
        /"other" has a vocabulary of 32000 .* "tiny" one of 2048;/,
      ],
      [{ draft_model: 'recurrent' }, 'invalid_request', /"recurrent" is recurrent .*; choose another one$/],
      [{ draft_model: 'encoder' }, 'invalid_request', /"encoder" reads inputs whole .*; choose another one$/],
      [{ draft_model: 'broken' }, 'invalid_model_file', /^draft_model: broken\.gguf is not usable: /],
      [
        { draft_model: 'absent' },
        'model_not_found',
        /^draft_model: there is no model "absent" in \[models\]/,
      ],
      [
        { draft_model: 'other.gguf' },
        'invalid_request',
        /is the id of a model, not a file; add its directory/,
      ],
      [
        { draft_model: join(dir, 'other') },
        'invalid_request',
        /is the id of a model, not a file; add its directory/,
      ],
      [{ draft_model: 'other', speculation: 'off' }, 'invalid_request', /set speculation = "auto" or leave/],
    ];
    for (const [over, code, text] of cases) {
      const error = await errorOf(load(over));
      assert.deepEqual([error.code, error.param], [code, 'draft_model'], error.message);
      assert.match(error.message, text);
    }
    // its own layers may, so it is not that nothing can
    const spec = modelSpecSchema.parse({ model_id: 'main', draft_model: 'other' });
    const { signal } = new AbortController();
    const { message } = await errorOf(loader.load(spec, join(dir, 'recurrent.gguf'), meter, signal));
    assert.match(
      message,
      /^no other model can draft for "main", which is recurrent .*; leave draft_model out$/,
    );
    const off = await errorOf(bench([9000], { speculation: 'off' }).load({ draft_model: 'cortex-tiny' }));
    assert.deepEqual([off.code, off.param], ['invalid_request', 'draft_model']);
    assert.deepEqual(devices[0]?.loads, []);
  });

  it('refuses a cache type that there is not before it looks for the file', async () => {
    const error = await errorOf(bench([1000]).load({ cache_type_k: 'q3' }));
    assert.deepEqual([error.code, error.param], ['invalid_request', 'cache_type_k']);
  });

  it('checks LoRA adapters before the load, and passes them on', async () => {
    const { load, devices } = bench([1000]);
    const absent = await errorOf(load({ lora: [{ file: join(dir, 'absent.gguf') }] }));
    assert.equal(absent.code, 'model_file_not_found');
    const text = join(dir, 'text.gguf');
    writeFileSync(text, 'no adapter');
    assert.equal((await errorOf(load({ lora: [{ file: text }] }))).code, 'invalid_model_file');
    assert.match((await errorOf(load({ lora: [{ file: tiny }] }))).message, /is no LoRA adapter/);
    assert.deepEqual(devices[0]?.loads, []);
  });
});
