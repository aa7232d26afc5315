/** The least that can be done over the same bindings: llama_decode in a loop, greedy, nothing else. */
import { DecodeBatch } from '../../packages/neuron/dist/engine/decode-batch.js';
import { openModel } from '../../packages/neuron/dist/engine/open-model.js';
import { readVocabulary } from '../../packages/neuron/dist/engine/vocabulary.js';
import { loadLibrary } from '../../packages/neuron/dist/libllama/load-library.js';

const ubatch = 512;
let bare = null;

const commands = { start, decode, prefill };

process.on('message', (message) => {
  try {
    process.send({ value: commands[message.command](message) });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on('disconnect', () => process.exit(0));

function start({ file, threads, context, slots }) {
  const libraryDir = process.env.NEURON_LIBLLAMA_DIR;
  const library = loadLibrary({ nativeLog: false, ...(libraryDir ? { libraryDir } : { variant: 'cpu' }) });
  const { api } = library;
  const spec = {
    modelId: 'bench',
    file,
    context,
    slots,
    devices: [],
    splitMode: 'layer',
    gpuLayers: null,
    cacheTypeK: 'f16',
    cacheTypeV: 'f16',
    batch: 2048,
    ubatch,
    threads,
    flashAttention: null,
    lora: [],
    embeddings: false,
    prefixCacheMb: 0,
    speculation: 'off',
    draftFile: null,
  };
  const opened = openModel(library, spec, () => true);
  const vocabulary = readVocabulary(api, opened.model);
  bare = {
    api,
    ...opened,
    vocabulary,
    memory: api.llama_get_memory(opened.context),
    batch: new DecodeBatch(2048),
  };
  const { model } = opened;
  const headDim = api.llama_model_n_embd(model) / api.llama_model_n_head(model);
  const kvBytesPerToken = api.llama_model_n_layer(model) * api.llama_model_n_head_kv(model) * headDim * 2 * 2;
  return { kvBytesPerToken, threads: api.llama_n_threads(opened.context) };
}

/** Tokens per second over all streams, the prompts not counted. */
function decode({ prompt, streams, tokens: count }) {
  const { api, context, vocabulary, batch } = bare;
  const tokens = vocabulary.tokenize(prompt, { addSpecial: true, parseSpecial: true });
  clear();
  const samplers = Array.from({ length: streams }, () => {
    const chain = api.llama_sampler_chain_init({ no_perf: true });
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy());
    return chain;
  });
  const next = samplers.map((sampler, stream) => {
    read(tokens, stream, 0);
    return api.llama_sampler_sample(sampler, context, -1);
  });
  const startedAt = performance.now();
  for (let step = 1; step < count; step++) {
    batch.clear();
    for (let stream = 0; stream < streams; stream++) {
      batch.add(next[stream], tokens.length + step - 1, stream, true);
    }
    check(api.llama_decode(context, batch.struct));
    for (let stream = 0; stream < streams; stream++) {
      next[stream] = api.llama_sampler_sample(samplers[stream], context, stream);
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  for (const sampler of samplers) api.llama_sampler_free(sampler);
  return ((count - 1) * streams) / seconds;
}

/** Milliseconds that `count` prompt tokens take on top of `depth`. */
function prefill({ depth, count }) {
  const { api, context } = bare;
  const tokens = Array.from({ length: depth + count }, (_, index) => 100 + ((index * 7919) % 1000));
  clear();
  read(tokens.slice(0, depth), 0, 0);
  api.llama_synchronize(context);
  const startedAt = performance.now();
  read(tokens.slice(depth), 0, depth);
  api.llama_synchronize(context);
  return performance.now() - startedAt;
}

function read(tokens, stream, offset) {
  const { api, context, batch } = bare;
  for (let from = 0; from < tokens.length; from += ubatch) {
    const part = tokens.slice(from, from + ubatch);
    batch.clear();
    for (const [index, token] of part.entries()) {
      const position = from + index;
      batch.add(token, offset + position, stream, position === tokens.length - 1);
    }
    check(api.llama_decode(context, batch.struct));
  }
}

function clear() {
  bare.api.llama_memory_clear(bare.memory, false);
}

function check(code) {
  if (code !== 0) throw new Error(`llama_decode returned ${code}`);
}
