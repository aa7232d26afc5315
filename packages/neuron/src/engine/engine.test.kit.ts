/**
 * Shared by the engine's tests: cortex-tiny loaded small, and requests driven to their end. Not part of the
 * product.
 */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { AppError } from 'cortex-core/wire/errors';
import type {
  GenerateParams,
  GenerateResult,
  LoadSpec,
  SamplingParams,
  StepEvent,
} from 'cortex-core/wire/inference';
import type { LoadedModel } from './loaded-model.ts';

export const tinyFile = fileURLToPath(
  new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url),
);

export const franceQuestion = 'What is the capital of France?';

/**
 * One thread: beside other test processes a spinning compute team is slower, not faster. No flash attention:
 * on the CPU its results move with the way a prompt is cut, and these tests compare answers exactly.
 */
export function tinySpec(over: Partial<LoadSpec> = {}): LoadSpec {
  return {
    modelId: 'cortex-tiny',
    file: tinyFile,
    context: 1024,
    slots: 4,
    devices: [],
    splitMode: 'layer',
    gpuLayers: null,
    cacheTypeK: 'f16',
    cacheTypeV: 'f16',
    batch: 256,
    ubatch: 64,
    threads: 1,
    flashAttention: false,
    lora: [],
    embeddings: false,
    prefixCacheMb: 0,
    speculation: 'off',
    draftFile: null,
    ...over,
  };
}

export type RequestOverrides = Partial<Omit<GenerateParams, 'sampling'>> & {
  readonly sampling?: Partial<SamplingParams>;
};

export function requestFor(tokens: Int32Array, over: RequestOverrides = {}): GenerateParams {
  return {
    maxTokens: 64,
    stops: [],
    grammar: null,
    topLogprobs: null,
    ignoreEos: false,
    tokens,
    ...over,
    sampling: { temperature: 0, ...over.sampling },
  };
}

export function chatTokens(model: LoadedModel, question: string): Int32Array {
  const text = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
  return model.tokenize(text, { addSpecial: true, parseSpecial: true });
}

/** Everything that one request's sink heard. */
export interface Heard {
  readonly events: StepEvent[];
  text: string;
  readonly tokens: number[];
  result: GenerateResult | null;
  error: AppError | null;
  cancel(): void;
}

export function listen(model: LoadedModel, params: GenerateParams): Heard {
  const heard: Heard = { events: [], text: '', tokens: [], result: null, error: null, cancel: () => {} };
  const { cancel } = model.submit(params, {
    onStep(event) {
      heard.events.push(event);
      heard.text += event.text;
      heard.tokens.push(...event.tokens);
    },
    onDone(result) {
      heard.result = result;
    },
    onError(error) {
      heard.error = error;
    },
  });
  heard.cancel = cancel;
  return heard;
}

/** Steps until nothing is left; a loop that never ends fails instead of hanging. */
export function drain(model: LoadedModel, stepsMax = 20_000): void {
  for (let step = 0; model.hasWork(); step++) {
    if (step >= stepsMax) throw new Error(`still work after ${stepsMax} steps`);
    model.step();
  }
}

export function ask(model: LoadedModel, question: string, over: RequestOverrides = {}): Heard {
  const heard = listen(model, requestFor(chatTokens(model, question), over));
  drain(model);
  return heard;
}

/**
 * Of requests with logprobs: the same answer, or one that parts where both tokens were as good: rows of other batches differ in their last
 * bits, which moves a logprob of cortex-tiny by up to 0.1 (a wrong cell moves it by far more).
 */
export function assertAlike(heard: Heard, expected: Heard, what: string): void {
  for (const [at, token] of heard.tokens.entries()) {
    const [mine, other] = [heard, expected].map(({ events }) => events[at]?.logprobs?.[0]);
    const same = other?.top.find((entry) => entry.token === token);
    assert.ok(mine && other && same, `${what}: token ${token} at ${at}`);
    assert.ok(Math.abs(mine.logprob - same.logprob) < 0.25, `${what}: ${mine.logprob}, ${same.logprob}`);
    if (token === other.token) continue;
    assert.ok(other.logprob - same.logprob < 0.25, `${what}: ${token} for ${other.token} at ${at}`);
    return;
  }
}
