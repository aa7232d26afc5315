import type { LoadSpec, ModelFacts, VocabularyFacts } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { defaultThreads } from './default-threads.ts';
import { cacheTypeOf, type OpenedModel } from './open-model.ts';
import { poolingOf } from './pooling.ts';
import type { Vocabulary } from './vocabulary.ts';

/** What was measured around the load. */
export interface LoadMeasurements {
  readonly fileBytes: number;
  readonly loadMs: number;
  /** Device memory that the load took, bytes; null on devices that cannot tell (the CPU). */
  readonly deviceBytes: number | null;
  /** Growth of this process's own memory while the context was made, bytes. */
  readonly contextBytes: number;
  /** The same of the model that drafts, with its weights; null = there is none. */
  readonly draft: { readonly weightsBytes: number; readonly contextBytes: number } | null;
  readonly drafts: { readonly by: NonNullable<ModelFacts['drafts']>; readonly why?: string | undefined };
}

export function readFacts(
  api: LlamaApi,
  opened: OpenedModel,
  vocabulary: Vocabulary,
  spec: LoadSpec,
  measured: LoadMeasurements,
): ModelFacts {
  const { model, context, contextTokens } = opened;
  const metadata = readMetadata(api, model);
  const recurrent = api.llama_model_is_recurrent(model) || api.llama_model_is_hybrid(model);
  const pooling = poolingOf(api, context);
  const canDraft = pooling === 'none' && (!recurrent || api.llama_n_rs_seq(context) > 0);
  return {
    ...readVocabularyFacts(api, vocabulary, metadata),
    description: readText((buffer) => api.llama_model_desc(model, buffer, buffer.length)),
    parameterCount: Number(api.llama_model_n_params(model)),
    fileBytes: measured.fileBytes,
    trainContext: api.llama_model_n_ctx_train(model),
    context: contextTokens,
    slots: spec.slots,
    threads: spec.threads ?? defaultThreads(Number(api.llama_model_n_params(model))),
    embeddingLength: api.llama_model_n_embd(model),
    layerCount: api.llama_model_n_layer(model),
    hasEncoder: api.llama_model_has_encoder(model),
    hasDecoder: api.llama_model_has_decoder(model),
    recurrent,
    pooling,
    eogTokens: vocabulary.eogTokens,
    ...readMemory(api, opened, metadata, spec, measured),
    loadMs: measured.loadMs,
    drafts: canDraft ? measured.drafts.by : 'off',
    ...(measured.drafts.why === undefined ? {} : { draftsWhy: measured.drafts.why }),
  };
}

/** What needs no weights: of a loaded model and of a vocabulary alone the same. */
export function readVocabularyFacts(
  api: LlamaApi,
  vocabulary: Vocabulary,
  metadata: Readonly<Record<string, string>>,
): VocabularyFacts {
  const { address } = vocabulary;
  const tokenText = (token: number): string | null =>
    token < 0 ? null : api.llama_vocab_get_text(address, token);
  return {
    architecture: metadata['general.architecture'] ?? 'unknown',
    vocabSize: vocabulary.size,
    ...readTemplates(metadata),
    bosToken: tokenText(api.llama_vocab_bos(address)),
    eosToken: tokenText(api.llama_vocab_eos(address)),
    sepToken: tokenText(api.llama_vocab_sep(address)),
    addBos: api.llama_vocab_get_add_bos(address),
    addEos: api.llama_vocab_get_add_eos(address),
    longestPieceBytes: vocabulary.longestPieceBytes(),
    metadata: withoutTemplates(metadata),
  };
}

/**
 * MiB of the load. A GPU tells: free memory before minus after. On the CPU the weights are mapped and become
 * resident as they are used, so: all weights, plus the larger of the KV size that the header gives and the
 * growth of this process's memory while the context was made (which sees recurrent states that the formula
 * does not). A model that drafts adds its weights and the growth while its own context was made. Compute
 * buffers are not in it before they are used; who knows the header better can do better with the parts.
 */
function readMemory(
  api: LlamaApi,
  { model, context, contextTokens, sequences }: OpenedModel,
  metadata: Readonly<Record<string, string>>,
  spec: LoadSpec,
  measured: LoadMeasurements,
): Pick<ModelFacts, 'memoryMb' | 'memoryParts'> {
  const toMib = (bytes: number): number => Math.ceil(bytes / 1024 ** 2);
  if (measured.deviceBytes !== null) return { memoryMb: toMib(measured.deviceBytes) };
  const weights = Number(api.llama_model_size(model));
  const hasKv = api.llama_get_memory(context) !== null;
  const kv = hasKv ? kvBytesPerToken(api, model, metadata, spec) * contextTokens * sequences : 0;
  const { weightsBytes, contextBytes } = measured.draft ?? { weightsBytes: 0, contextBytes: 0 };
  return {
    memoryMb: toMib(weights + weightsBytes + Math.max(kv, measured.contextBytes) + contextBytes),
    memoryParts: {
      weightsMb: (weights + weightsBytes) / 1024 ** 2,
      contextMb: (measured.contextBytes + contextBytes) / 1024 ** 2,
    },
  };
}

/** KV of one token over all layers, from the header. */
function kvBytesPerToken(
  api: LlamaApi,
  model: bigint,
  metadata: Readonly<Record<string, string>>,
  spec: LoadSpec,
): number {
  const heads = api.llama_model_n_head(model);
  const headLength = heads === 0 ? 0 : api.llama_model_n_embd(model) / heads;
  const length = (key: string): number => {
    const text = metadata[`${metadata['general.architecture']}.attention.${key}`];
    return text === undefined ? headLength : Number(text);
  };
  const bytes = (type: number, values: number): number =>
    (values * Number(api.ggml_type_size(type))) / Number(api.ggml_blck_size(type));
  const perHead =
    bytes(cacheTypeOf(spec.cacheTypeK), length('key_length')) +
    bytes(cacheTypeOf(spec.cacheTypeV), length('value_length'));
  return api.llama_model_n_layer(model) * api.llama_model_n_head_kv(model) * perHead;
}

/** All scalars; arrays such as the vocabulary are not among them. */
export function readMetadata(api: LlamaApi, model: bigint): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (let index = 0; index < api.llama_model_meta_count(model); index++) {
    const key = readText((buffer) => api.llama_model_meta_key_by_index(model, index, buffer, buffer.length));
    metadata[key] = readText((buffer) =>
      api.llama_model_meta_val_str_by_index(model, index, buffer, buffer.length),
    );
  }
  return metadata;
}

const templateKey = 'tokenizer.chat_template';

function readTemplates(
  metadata: Readonly<Record<string, string>>,
): Pick<ModelFacts, 'chatTemplate' | 'namedTemplates'> {
  const named = Object.entries(metadata).filter(([key]) => key.startsWith(`${templateKey}.`));
  return {
    chatTemplate: metadata[templateKey] ?? null,
    namedTemplates: Object.fromEntries(
      named.map(([key, value]) => [key.slice(templateKey.length + 1), value]),
    ),
  };
}

function withoutTemplates(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata).filter(([key]) => !key.startsWith(templateKey)));
}

/** Text of a function in snprintf's manner: it writes what fits and returns the length that it wanted. */
function readText(read: (buffer: Uint8Array) => number): string {
  let buffer = new Uint8Array(512);
  let length = read(buffer);
  if (length >= buffer.length) {
    buffer = new Uint8Array(length + 1);
    length = read(buffer);
  }
  return new TextDecoder().decode(buffer.subarray(0, Math.max(length, 0)));
}
