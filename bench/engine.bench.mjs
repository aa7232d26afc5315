/**
 * Tokens per second over all streams: a bare llama_decode loop through the same bindings, and Engine.
 *
 *   node bench/engine.bench.mjs [model.gguf] [tokens a stream] [streams: 1,4,8] [prompt repeats] [threads]
 *
 * Needs a build (`npx tsc -b`). Greedy, end-of-generation tokens ignored. Only time after the prompts counts.
 */
import { fileURLToPath } from 'node:url';
import { DecodeBatch } from '../packages/neuron/dist/engine/decode-batch.js';
import { Engine } from '../packages/neuron/dist/engine/engine.js';
import { openModel } from '../packages/neuron/dist/engine/open-model.js';
import { readVocabulary } from '../packages/neuron/dist/engine/vocabulary.js';
import { loadLibrary } from '../packages/neuron/dist/libllama/load-library.js';

const defaultModel = fileURLToPath(new URL('../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const [file = defaultModel, tokensText = '128', streamsText = '1,4,8', repeats = '1', threads] =
  process.argv.slice(2);
const tokensPerStream = Number(tokensText);
const question = 'Tell me a story about a fox. '.repeat(Number(repeats));
const prompt = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
const contextLength = 512 + 10 * Number(repeats);
const library = loadLibrary({ nativeLog: false });

const specFor = (slots) => ({
  modelId: 'bench',
  file,
  context: contextLength,
  slots,
  devices: [],
  splitMode: 'layer',
  gpuLayers: null,
  cacheTypeK: 'f16',
  cacheTypeV: 'f16',
  batch: contextLength,
  ubatch: 512,
  threads: threads === undefined ? null : Number(threads),
  flashAttention: null,
  lora: [],
  embeddings: false,
});

const rows = [];
for (const streams of streamsText.split(',').map(Number)) {
  rows.push({ streams, bare: bareLoop(streams), engine: engineLoop(streams) });
}
console.log(`${file}, ${tokensPerStream} tokens a stream, tokens/s over all streams`);
console.table(rows);

function bareLoop(streams) {
  const { api } = library;
  const { model, context } = openModel(library, specFor(streams), () => true);
  const vocabulary = readVocabulary(api, model);
  const tokens = vocabulary.tokenize(prompt, { addSpecial: true, parseSpecial: true });
  const batch = new DecodeBatch(contextLength);
  const samplers = Array.from({ length: streams }, () => {
    const chain = api.llama_sampler_chain_init({ no_perf: true });
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy());
    return chain;
  });
  const next = [];
  for (let stream = 0; stream < streams; stream++) {
    batch.clear();
    for (const [position, token] of tokens.entries()) {
      batch.add(token, position, stream, position === tokens.length - 1);
    }
    api.llama_decode(context, batch.struct);
    next.push(api.llama_sampler_sample(samplers[stream], context, -1));
  }
  const startedAt = performance.now();
  for (let step = 1; step < tokensPerStream; step++) {
    batch.clear();
    for (let stream = 0; stream < streams; stream++) {
      batch.add(next[stream], tokens.length + step - 1, stream, true);
    }
    api.llama_decode(context, batch.struct);
    for (let stream = 0; stream < streams; stream++) {
      next[stream] = api.llama_sampler_sample(samplers[stream], context, stream);
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const sampler of samplers) api.llama_sampler_free(sampler);
  batch.close();
  api.llama_free(context);
  api.llama_model_free(model);
  return Math.round(((tokensPerStream - 1) * streams) / seconds);
}

function engineLoop(streams) {
  const engine = new Engine({ library });
  const model = engine.load(specFor(streams));
  const tokens = model.tokenize(prompt, { addSpecial: true, parseSpecial: true });
  const seen = new Array(streams).fill(0);
  for (let stream = 0; stream < streams; stream++) {
    model.submit(
      {
        tokens,
        sampling: { temperature: 0 },
        maxTokens: tokensPerStream,
        stops: [],
        grammar: null,
        topLogprobs: null,
        ignoreEos: true,
      },
      {
        onStep: (event) => {
          seen[stream] += event.tokens.length;
        },
        onDone: () => {},
        onError: (error) => {
          throw error;
        },
      },
    );
  }
  while (seen.some((count) => count === 0)) model.step();
  const before = seen.reduce((sum, count) => sum + count, 0);
  const startedAt = performance.now();
  while (model.hasWork()) model.step();
  const seconds = (performance.now() - startedAt) / 1000;
  const after = seen.reduce((sum, count) => sum + count, 0);
  engine.close();
  return Math.round((after - before) / seconds);
}
