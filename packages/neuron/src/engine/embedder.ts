/**
 * Vectors and scores of whole inputs.
 *
 * Problem: libllama pools what one compute graph sees, and with embeddings switched on every token of a
 * decode call is an output; a generation's context has room for one output per sequence.
 * Design: two ways, chosen by the model (`readsWhole`).
 *   whole: encoders, and models that pool by mean or by their first token. The context was made for it
 *          (open-model.ts): an input is never cut, and several short ones share a call, a sequence each.
 *   last:  causal models whose vector is the last token's state. All but the last token are read like a
 *          prompt, without outputs, on the reserved sequence; then embeddings are switched on for the last
 *          token alone. A plain decoder (`pooling` none) is read this way too: only its last position has
 *          seen the whole input, a mean would be one of states that mostly have not.
 * A task does one decode call a step, so that running streams and cancels come between.
 * Limits: what ForwardLogits held in the reserved sequence is forgotten by a `last` task; if somebody else
 * uses that sequence between two steps, the input under way starts again.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { EmbedResult, ModelFacts, RankResult } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import { viewFloats } from '../libllama/native-memory.ts';
import type { DecodeBatch } from './decode-batch.ts';
import { decodeFailed } from './decode-failed.ts';
import type { ReservedSequence } from './reserved-sequence.ts';
import { checkTokens } from './vocabulary.ts';

/** Work in pieces: `step` until it returns the result. */
export interface SteppedTask<T> {
  /** One decode call at most. What it throws ends the task. */
  step(): T | null;
}

export interface EmbedderOptions {
  readonly api: LlamaApi;
  readonly context: bigint;
  /** Null: the model keeps no KV. */
  readonly memory: bigint | null;
  readonly batch: DecodeBatch;
  readonly reserved: ReservedSequence;
  readonly facts: ModelFacts;
  /** Length of a vector. */
  readonly width: number;
  /** Whether the context reads inputs whole; see above. */
  readonly readsWhole: boolean;
  /** Sequences of the context. */
  readonly sequences: number;
  /** Tokens in one compute graph, as configured. */
  readonly ubatch: number;
  readonly modelId: string;
}

export interface Embedder {
  /** Errors, thrown at once: `invalid_request`, `context_length_exceeded`, `wrong_modality`. */
  embed(inputs: readonly Int32Array[]): SteppedTask<EmbedResult>;
  rank(inputs: readonly Int32Array[]): SteppedTask<RankResult>;
}

const inputsMax = 2048;
/** libllama keeps vocabulary-sized rows for every output, also where nobody reads them. */
const outputFloatsMax = 1 << 26;

export function createEmbedder(options: EmbedderOptions): Embedder {
  const { facts, modelId } = options;
  return {
    embed(inputs) {
      if (facts.pooling === 'rank') throw refuse(modelId, 'is a reranker and makes no vectors; use rank');
      checkInputs(inputs, 'input', facts);
      const promptTokens = countTokens(inputs);
      return mapTask(start(options, inputs, options.width), (vectors) => ({ vectors, promptTokens }));
    },
    rank(inputs) {
      if (facts.pooling !== 'rank') throw refuse(modelId, 'is no reranker; load a model that is one');
      checkInputs(inputs, 'documents', facts);
      const promptTokens = countTokens(inputs);
      // A head with several classes puts the one for "relevant" first.
      return mapTask(start(options, inputs, 1), (rows) => ({
        scores: Float32Array.from(rows, (row) => row[0] as number),
        promptTokens,
      }));
    },
  };
}

function start(
  options: EmbedderOptions,
  inputs: readonly Int32Array[],
  width: number,
): SteppedTask<readonly Float32Array[]> {
  return options.readsWhole ? readWhole(options, inputs, width) : readLast(options, inputs, width);
}

function mapTask<A, B>(task: SteppedTask<A>, map: (result: A) => B): SteppedTask<B> {
  return {
    step() {
      const result = task.step();
      return result === null ? null : map(result);
    },
  };
}

function readWhole(
  options: EmbedderOptions,
  inputs: readonly Int32Array[],
  width: number,
): SteppedTask<readonly Float32Array[]> {
  const { api, context, memory, batch, facts, sequences, modelId } = options;
  const tokensMax = Math.min(options.ubatch, Math.floor(outputFloatsMax / facts.vocabSize));
  const rows: Float32Array[] = [];
  const fill = (): number => {
    batch.clear();
    let count = 0;
    for (; count < sequences; count++) {
      const input = inputs[rows.length + count];
      if (input === undefined || (count > 0 && batch.size + input.length > tokensMax)) break;
      for (const [position, token] of input.entries()) batch.add(token, position, count, true);
    }
    return count;
  };
  return {
    step() {
      const count = fill();
      try {
        const code = api.llama_decode(context, batch.struct);
        if (code !== 0) throw decodeFailed(modelId, code);
        for (let sequence = 0; sequence < count; sequence++) {
          rows.push(copyRow(api.llama_get_embeddings_seq(context, sequence), width, modelId));
        }
      } finally {
        if (memory !== null) api.llama_memory_clear(memory, false);
      }
      return rows.length === inputs.length ? rows : null;
    },
  };
}

function readLast(
  options: EmbedderOptions,
  inputs: readonly Int32Array[],
  width: number,
): SteppedTask<readonly Float32Array[]> {
  const { api, context, reserved, facts, modelId } = options;
  const rows: Float32Array[] = [];
  let version = -1;
  const readLastToken = (input: Int32Array): Float32Array => {
    api.llama_set_embeddings(context, true);
    try {
      const row = reserved.append(input, input.length - 1, input.length, true);
      const address =
        facts.pooling === 'none'
          ? api.llama_get_embeddings_ith(context, row)
          : api.llama_get_embeddings_seq(context, reserved.id);
      return copyRow(address, width, modelId);
    } finally {
      api.llama_set_embeddings(context, false);
    }
  };
  return {
    step() {
      const input = inputs[rows.length] as Int32Array;
      // Not as the last step left it: begin this input (again).
      if (reserved.version !== version) reserved.clear();
      const from = reserved.length;
      const to = Math.min(from + options.ubatch, input.length - 1);
      if (from < to) {
        reserved.append(input, from, to, false);
        version = reserved.version;
        return null;
      }
      rows.push(readLastToken(input));
      reserved.clear();
      version = reserved.version;
      return rows.length === inputs.length ? rows : null;
    },
  };
}

/** Errors: `logits_not_finite`. */
function copyRow(address: unknown, width: number, modelId: string): Float32Array {
  if (address === null) throw new AppError('job_failed', `model "${modelId}" gave no embedding`);
  const row = viewFloats(address as bigint, width).slice();
  if (row.every(Number.isFinite)) return row;
  throw new AppError(
    'logits_not_finite',
    `model "${modelId}" computed an embedding that is not a number; try again, and look at the device`,
  );
}

function checkInputs(inputs: readonly Int32Array[], param: string, facts: ModelFacts): void {
  if (inputs.length === 0 || inputs.length > inputsMax) {
    throw invalid(param, `${param} must hold 1 to ${inputsMax} texts, not ${inputs.length}`);
  }
  for (const [index, input] of inputs.entries()) {
    const name = `${param}.${index}`;
    if (input.length === 0) throw invalid(name, `${name} is empty; send at least one token`);
    if (input.length > facts.context) {
      throw new AppError(
        'context_length_exceeded',
        `${name} has ${input.length} tokens; this model reads at most ${facts.context}. Shorten or split it.`,
        { param: name, extras: { prompt_len: input.length, max: facts.context } },
      );
    }
    checkTokens(input, facts.vocabSize);
  }
}

function countTokens(inputs: readonly Int32Array[]): number {
  return inputs.reduce((sum, input) => sum + input.length, 0);
}

function invalid(param: string, message: string): AppError {
  return new AppError('invalid_request', message, { param });
}

function refuse(modelId: string, why: string): AppError {
  return new AppError('wrong_modality', `model "${modelId}" ${why}`, { param: 'model' });
}
