import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import type { KvCacheType, LoadSpec } from 'cortex-core/wire/inference';
import { testModel } from 'testkit/test-models';
import { measureWithLibllama } from './libllama-measure.test.kit.ts';
import { planLoad } from './load-plan.ts';
import { estimateMemory, type LoadShape } from './memory.ts';
import { toModelShape } from './model-shape.ts';
import { checkModelFiles } from './preflight.ts';
import { families, predicting, predictingHybrid, writeSyntheticGguf } from './synthetic-gguf.test.kit.ts';
import { placeWeights, weightBytes } from './weights.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const smol = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');

interface Case extends Pick<LoadShape, 'slots' | 'ubatch' | 'cacheTypeK' | 'cacheTypeV' | 'flashAttention'> {
  readonly context: number;
  readonly fullWindow?: boolean;
}

const typical: Case = {
  context: 4096,
  slots: 4,
  ubatch: 512,
  cacheTypeK: 'f16',
  cacheTypeV: 'f16',
  flashAttention: false,
};
const cases: readonly Case[] = [
  typical,
  { ...typical, flashAttention: true },
  { ...typical, context: 256, slots: 1 },
  { ...typical, context: 300, slots: 7 },
  { ...typical, context: 32_768, slots: 2 },
  { ...typical, context: 32_768, slots: 16, flashAttention: true },
  { ...typical, context: 8192, ubatch: 64 },
  { ...typical, context: 2048, slots: 1, ubatch: 2048 },
];
const quantized: readonly Case[] = (['q8_0', 'q5_1', 'q4_0', 'iq4_nl'] as KvCacheType[]).map((type) => ({
  ...typical,
  cacheTypeK: type,
  cacheTypeV: type,
  flashAttention: true,
}));

/** libllama's figures are printed with two decimals. */
const printedMb = 0.06;

async function compare(file: string, all: readonly Case[]): Promise<void> {
  const { header, tensors, fileBytes } = await checkModelFiles([file]);
  const shape = toModelShape(header);
  const jobs = all.map((each) => ({ spec: toSpec(file, each), fullWindow: each.fullWindow ?? true }));
  for (const [at, actual] of measureWithLibllama(jobs).entries()) {
    const each = all[at] ?? typical;
    const load = { fullWindow: true, deviceCount: 1, overheadMb: 0, outputs: each.slots + 1, ...each };
    const estimate = estimateMemory(shape, weightBytes(tensors, fileBytes), load, each.context);
    const text = `${JSON.stringify(each)}: ${JSON.stringify(estimate)} against ${JSON.stringify(actual)}`;
    assert.ok(Math.abs(estimate.weightsMb - actual.weightsMb) < 0.01, text);
    assert.ok(Math.abs(estimate.cacheMb - actual.cacheMb) <= printedMb, text);
    // The vocabulary's tables are not in libllama's account.
    const computeMb = estimate.computeMb - (shape.vocabulary * 340) / 1024 ** 2;
    assert.ok(computeMb >= 0.93 * actual.computeMb - printedMb, text);
    assert.ok(computeMb <= 1.3 * actual.computeMb + printedMb, text);
  }
}

function toSpec(file: string, each: Case): LoadSpec {
  return {
    ...each,
    modelId: 'measured',
    file,
    devices: [],
    splitMode: 'none',
    gpuLayers: 0,
    batch: 2048,
    threads: 1,
    lora: [],
    embeddings: false,
    prefixCacheMb: 0,
    speculation: 'off',
    draftFile: null,
  };
}

describe('estimateMemory()', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'memory-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  it('is what libllama says of cortex-tiny: cache exactly, compute buffers within -7 % and +30 %', async () => {
    await compare(tiny, cases);
  });

  it('is what libllama says of SmolLM2, with every kind of cache', { skip: smol.skip }, async () => {
    await compare(smol.file, [...cases, ...quantized]);
  });

  for (const [family, model] of Object.entries(families)) {
    it(`is what libllama says of the ${family} family`, async () => {
      const file = join(dir, `${family}.gguf`);
      await writeSyntheticGguf(file, model);
      // Quantised keys of latent attention are no key and value types of their own.
      await compare(file, family === 'deepseek2' || family === 'mamba2' ? cases : [...cases, ...quantized]);
    });
  }

  it('counts layers with a sliding window by their window where the engine keeps no more', async () => {
    const file = join(dir, 'window.gguf');
    await writeSyntheticGguf(file, families.gemma3 ?? never());
    const windowed = cases.map((each): Case => ({ ...each, fullWindow: false }));
    await compare(file, windowed);
  });

  for (const model of [predicting, predictingHybrid]) {
    it(`is what libllama says of ${model.architecture} with the context of its prediction layers and without`, async () => {
      const file = join(dir, `${model.architecture}.gguf`);
      await writeSyntheticGguf(file, model);
      const checked = await checkModelFiles([file]);
      const target = { id: 'cpu', splitMode: 'none', members: [{ kind: 'cpu' }] } as const;
      const shapes = cases.filter(({ ubatch }) => ubatch <= 512);
      const all = shapes.flatMap((each) =>
        (['mtp', 'ngram'] as const).map((speculation) => ({ each, speculation })),
      );
      const jobs = all.map(({ each, speculation }) => ({
        spec: { ...toSpec(file, each), speculation },
        fullWindow: true,
      }));
      for (const [at, actual] of measureWithLibllama(jobs).entries()) {
        const { each, speculation } = all[at] ?? { each: typical, speculation: 'ngram' };
        const { engine } = neuronConfigSchema.parse({
          engine: { flash_attention: each.flashAttention, ubatch: each.ubatch, batch: 2048 },
        });
        const drafter = speculation === 'mtp' ? 'mtp' : null;
        const plan = planLoad(checked, { slots: each.slots }, engine, target, file, drafter);
        const estimate = plan.estimateAt(each.context);
        const text = `${speculation} ${JSON.stringify(each)}: ${JSON.stringify(estimate)} against ${JSON.stringify(actual)}`;
        assert.equal(plan.speculation, speculation);
        assert.ok(Math.abs(estimate.weightsMb - actual.weightsMb) < 0.01, text);
        assert.ok(Math.abs(estimate.cacheMb - actual.cacheMb) <= 2 * printedMb, text);
        // Hidden states are held from the first step on; work buffers and tables are not in its account.
        const states = speculation === 'mtp' ? 2048 + each.ubatch + each.slots * 66 : 0;
        const beyondMb = 12 + (32_000 * 340 + states * 1536 * 4) / 1024 ** 2;
        const computeMb = estimate.computeMb - beyondMb;
        assert.ok(computeMb >= 0.93 * actual.computeMb - 2 * printedMb, text);
        // Two graphs, each taken for its largest moment.
        assert.ok(computeMb <= 1.45 * actual.computeMb + 2 * printedMb, text);
      }
    });
  }

  for (const [name, { file, skip }] of Object.entries({
    'cortex-tiny': { file: tiny, skip: false },
    SmolLM2: smol,
  })) {
    it(`is within 10 % and 8 MiB of what libllama takes for ${name} as a whole`, { skip }, async () => {
      const checked = await checkModelFiles([file]);
      const target = { id: 'cpu', splitMode: 'none', members: [{ kind: 'cpu' }] } as const;
      const { engine } = neuronConfigSchema.parse({ engine: { flash_attention: false, speculation: 'off' } });
      const plan = planLoad(checked, {}, engine, target, file);
      const contexts = [512, 2048, 8192];
      const jobs = contexts.map((context) => ({
        spec: toSpec(file, { ...typical, context }),
        fullWindow: true,
      }));
      // Work buffers and the vocabulary's tables come on top of what libllama accounts for.
      const vocabulary = checked.header.arrayLengths.get('tokenizer.ggml.tokens') ?? 0;
      const beyondMb = 12 + (vocabulary * 340) / 1024 ** 2;
      for (const [at, { weightsMb, cacheMb, computeMb }] of measureWithLibllama(jobs).entries()) {
        const actualMb = weightsMb + cacheMb + computeMb;
        const { totalMb } = plan.estimateAt(contexts[at] ?? 0);
        const text = `context ${contexts[at]}: ${totalMb} against ${actualMb}`;
        assert.ok(Math.abs(totalMb - beyondMb - actualMb) <= 0.1 * actualMb + 8, text);
      }
    });
  }
});

describe('toModelShape()', () => {
  it('gives a model that makes vectors no cache, and buffers for its whole input', () => {
    const bert = toModelShape({
      version: 3,
      metadata: new Map<string, string | number | boolean>([
        ['general.architecture', 'bert'],
        ['bert.block_count', 12],
        ['bert.embedding_length', 768],
        ['bert.feed_forward_length', 3072],
        ['bert.attention.head_count', 12],
        ['bert.attention.causal', false],
        ['bert.context_length', 8192],
      ]),
      numberArrays: new Map(),
      arrayLengths: new Map([['tokenizer.ggml.tokens', 30_522]]),
      tensors: [],
      dataOffset: 0,
      fileBytes: 0,
    });
    const load = { ...typical, fullWindow: true, deviceCount: 1, overheadMb: 0, outputs: 5 };
    const [short, long] = [512, 8192].map((context) => estimateMemory(bert, 0, load, context));
    assert.deepEqual([short?.cacheMb, long?.cacheMb], [0, 0]);
    assert.ok((long?.computeMb ?? 0) > 8 * (short?.computeMb ?? 0), JSON.stringify([short, long]));
  });

  it('does not grow with what a header claims', () => {
    const shape = toModelShape({
      version: 3,
      metadata: new Map<string, string | number>([
        ['general.architecture', 'llama'],
        ['llama.block_count', 4e9],
        ['llama.attention.head_count', 0],
        ['llama.embedding_length', Number.NaN],
      ]),
      numberArrays: new Map(),
      arrayLengths: new Map(),
      tensors: [],
      dataOffset: 0,
      fileBytes: 0,
    });
    assert.equal(shape.layers.length, 4096);
    const estimate = estimateMemory(
      shape,
      0,
      { ...typical, fullWindow: true, deviceCount: 1, overheadMb: 0, outputs: 5 },
      4096,
    );
    assert.ok(Number.isFinite(estimate.totalMb));
  });
});

describe('placeWeights()', () => {
  const tensors = ['token_embd.weight', 'blk.0.a', 'blk.1.a', 'blk.2.a', 'output_norm.weight'].map(
    (name) => ({
      name,
      type: 0,
      offset: 0,
      bytes: 10,
    }),
  );

  it('leaves the embedding and the first layers on the host, and copies a shared output matrix', () => {
    assert.deepEqual(placeWeights(tensors, 3, null), { deviceBytes: 50, hostBytes: 10, firstLayer: 0 });
    assert.deepEqual(placeWeights(tensors, 3, 2), { deviceBytes: 30, hostBytes: 30, firstLayer: 2 });
    assert.deepEqual(placeWeights(tensors, 3, 0), { deviceBytes: 0, hostBytes: 50, firstLayer: 4 });
    const own = [...tensors, { name: 'output.weight', type: 0, offset: 0, bytes: 10 }];
    assert.deepEqual(placeWeights(own, 3, 99), { deviceBytes: 50, hostBytes: 10, firstLayer: 0 });
  });
});

function never(): never {
  throw new Error('not reached');
}
