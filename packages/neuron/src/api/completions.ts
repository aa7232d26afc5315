/**
 * POST /v1/completions: raw text, without a template. Several prompts and `n` choices of each; with `suffix`
 * the text between, where the vocabulary has the tokens for it.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { type CompletionRequest, completionRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { toInfillPrompt } from '../chat/infill.ts';
import { refuseUnsupportedCompletion, toCompletionParams } from '../chat/sampling.ts';
import { TextAnswer, toTextChunk, toTextWhole } from '../chat/text-answer.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import { goOn, readContinuation } from './continuation.ts';
import {
  assertGenerates,
  checkChoices,
  checkInput,
  limited,
  newIdentity,
  type Presenter,
  readOnModel,
  repeatParams,
  runJob,
} from './generation.ts';
import { checkTokens, refuseOversized } from './prompt-size.ts';

type Prompt = string | readonly number[];

interface Read {
  readonly tokens: Int32Array;
  /** What `echo` shows before the answer. */
  readonly shown: string;
}

export async function serveCompletion(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const body = await exchange.json();
  const request = parseBody(completionRequestSchema, body);
  refuseUnsupportedCompletion(request);
  const sofar = readContinuation(exchange, body, request.stream === true);
  const prompts = toPrompts(request.prompt);
  const n = request.n ?? 1;
  checkChoices(prompts.length, 'prompt');
  checkChoices(prompts.length * n, 'n');
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  assertGenerates(model);
  const read = await readOnModel(deps, model, async () => {
    const all: Read[] = [];
    for (const [at, prompt] of prompts.entries()) {
      const param = prompts.length === 1 ? 'prompt' : `prompt.${at}`;
      all.push(await readPrompt(request, prompt, param, model, exchange.signal));
    }
    return all;
  });
  const fresh = read.flatMap(({ tokens }) => {
    const params = toCompletionParams(request, tokens, model.facts.metadata);
    return repeatParams(limited(params, 'prompt', model, deps), n);
  });
  const generations = sofar === null ? fresh : goOn(exchange, model, fresh, sofar);
  const answers = read.flatMap(({ shown }) => Array.from({ length: n }, () => new TextAnswer(shown)));
  const who = sofar ?? newIdentity('cmpl', request.model, deps);
  const presenter: Presenter = {
    begin: (at) => chunksOf(at, answers[at]?.begin()),
    step: (at, event) => chunksOf(at, answers[at]?.step(event)),
    finish: (at, result) => chunksOf(at, answers[at]?.finish(result)),
    usage: (results, timings) => ({ ...toTextWhole(who, [], results, n), choices: [], timings }),
    whole: (results, timings) => ({ ...toTextWhole(who, answers, results, n), timings }),
  };
  const chunksOf = (at: number, delta: ReturnType<TextAnswer['step']> | undefined): unknown[] => {
    return delta == null ? [] : [toTextChunk(who, at, delta)];
  };
  await runJob(deps, exchange, { request, model, generations, presenter });
}

/** One prompt as a text or as token ids, or a list of either. */
function toPrompts(prompt: CompletionRequest['prompt']): readonly Prompt[] {
  if (typeof prompt === 'string') return [prompt];
  const isList = prompt.length > 0 && typeof prompt[0] !== 'number';
  return isList ? (prompt as readonly Prompt[]) : [prompt as readonly number[]];
}

async function readPrompt(
  request: CompletionRequest,
  prompt: Prompt,
  param: string,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Read> {
  const { suffix = '', echo = false } = request;
  const given = typeof prompt === 'string' ? null : checkTokens(prompt, param, model.facts);
  if (typeof prompt === 'string') refuseOversized(prompt, param, model.facts);
  if (given !== null && given.length > 0) checkInput(given.length, param, model);
  refuseOversized(suffix, 'suffix', model.facts);
  const shown = echo ? (typeof prompt === 'string' ? prompt : await toText(given, model, signal)) : '';
  if (suffix !== '') return { tokens: await infill(prompt, suffix, model, signal), shown };
  if (given !== null) return { tokens: given, shown };
  const options = { addSpecial: true, parseSpecial: true };
  return { tokens: await model.device.tokenize(model.handle, prompt as string, options, signal), shown };
}

async function toText(tokens: Int32Array | null, model: ServingModel, signal: AbortSignal): Promise<string> {
  return model.device.detokenize(model.handle, tokens ?? new Int32Array(0), signal);
}

async function infill(
  prompt: Prompt,
  suffix: string,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  const special = await model.infill();
  if (special === null) {
    throw new AppError(
      'unsupported_parameter',
      `model "${model.id}" has no tokens for filling in the middle; leave "suffix" out`,
      { param: 'suffix', extras: { model_id: model.id } },
    );
  }
  // Device and handle are read at each call: the model may have moved between two.
  const tokenize = (text: string, parseSpecial: boolean): Promise<Int32Array> =>
    model.device.tokenize(model.handle, text, { addSpecial: false, parseSpecial }, signal);
  // the client's text is text here: a marker in it must not act as one
  const before = typeof prompt === 'string' ? await tokenize(prompt, false) : Int32Array.from(prompt);
  const after = await tokenize(suffix, false);
  const begin = model.facts.addBos ? await tokenize(model.facts.bosToken ?? '', true) : new Int32Array(0);
  return toInfillPrompt(special, begin, before, after);
}
