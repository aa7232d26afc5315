/**
 * POST /v1/chat/completions. In this order, each step with its own refusals: shape, unsupported fields,
 * model, template, tokens, context, admission, and only then a byte of the answer.
 */
import { randomUUID } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { GenerateParams } from 'cortex-core/wire/inference';
import { type ChatChunk, type ChatRequest, chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { ChatAnswer } from '../chat/answer.ts';
import { endOf, planThinking, planTools, refuseUnsupportedChat, type ToolPlan } from '../chat/chat-fields.ts';
import { mayCall, planGrammar, planReasoning } from '../chat/chat-grammar.ts';
import { toOfferedTools } from '../chat/format/offered-tools.ts';
import { startsInReasoning } from '../chat/format/read-turn.ts';
import { toLegacyAnswer, toLegacyChunk } from '../chat/legacy-functions.ts';
import { toPlainMessages, toTemplateTools } from '../chat/messages.ts';
import { toChatParams } from '../chat/sampling.ts';
import { withToolTexts } from '../chat/tool-text.ts';
import { sumUsages } from '../chat/usage.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { ApiDeps } from './api-deps.ts';
import {
  assertGenerates,
  checkChoices,
  limited,
  newIdentity,
  onModel,
  type Presenter,
  repeatParams,
  runJob,
} from './generation.ts';
import { refuseOversized } from './prompt-size.ts';

/** As many as the engine takes: the client's come first. */
const stopsMax = 64;

export async function serveChat(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(chatRequestSchema, await exchange.json());
  refuseUnsupportedChat(request);
  const n = request.n ?? 1;
  checkChoices(n, 'n');
  const plan = planTools(request);
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  assertGenerates(model);
  const grammar = planGrammar(request, plan, model.format);
  const prompt = await onModel(deps, model, () => readPrompt(request, plan, model, exchange.signal));
  const asked = toChatParams(request, prompt.tokens, model.facts.metadata);
  const params: GenerateParams = {
    ...asked,
    grammar,
    stops: [...asked.stops, ...model.format.stops].slice(0, stopsMax),
    reasoning: planReasoning({ format: model.format, mayCall: mayCall(request, plan), ...prompt }),
  };
  const who = newIdentity('chatcmpl', request.model, deps);
  const options = {
    format: model.format,
    tools: toOfferedTools(plan.tools),
    startsInReasoning: prompt.isOpen,
    parallel: plan.parallel,
    stops: asked.stops,
    promptTokens: request.stream_options?.include_prompt_usage === true ? prompt.tokens.length : null,
    randomText: () => randomUUID().replaceAll('-', ''),
  };
  await runJob(deps, exchange, {
    request,
    model,
    generations: repeatParams(limited(params, 'messages', model, deps), n),
    presenter: presentChat(
      Array.from({ length: n }, () => new ChatAnswer(who, options)),
      plan.isLegacy,
    ),
  });
}

/** The choices of one request as one stream, or one answer. */
function presentChat(answers: readonly ChatAnswer[], isLegacy: boolean): Presenter {
  const answerAt = (at: number): ChatAnswer => answers[at] as ChatAnswer;
  const placed = (at: number, chunks: readonly ChatChunk[]): readonly unknown[] => {
    const shown =
      at === 0 ? chunks : chunks.map((chunk) => ({ ...chunk, choices: indexed(chunk.choices, at) }));
    return isLegacy ? shown.map(toLegacyChunk) : shown;
  };
  return {
    begin: (at, cachedTokens) => placed(at, [answerAt(at).begin(cachedTokens)]),
    step: (at, event) => placed(at, answerAt(at).step(event)),
    isOver: (at) => answerAt(at).isOver,
    finish: (at, result) => placed(at, answerAt(at).finish(result)),
    usage: (results, timings) => {
      const chunks = results.map((result, at) => answerAt(at).usageChunk(result, timings));
      const usages = chunks.flatMap(({ usage }) => usage ?? []);
      return { ...chunks[0], usage: sumUsages(usages, results.length) };
    },
    whole: (results, timings) => {
      const wholes = results.map((result, at) => answerAt(at).whole(result, timings));
      const choices = wholes.flatMap((whole, at) => indexed(whole.choices, at));
      const usage = sumUsages(
        wholes.map((whole) => whole.usage),
        results.length,
      );
      const [first] = wholes;
      if (first === undefined) return null;
      const { usage: _, timings: own, ...head } = first;
      const whole = { ...head, choices, usage, ...(own === undefined ? {} : { timings: own }) };
      return isLegacy ? toLegacyAnswer(whole) : whole;
    },
  };
}

function indexed<T extends object>(choices: readonly T[], index: number): readonly T[] {
  return choices.map((choice) => ({ ...choice, index }));
}

interface Prompt {
  readonly tokens: Int32Array;
  /** It leaves a reasoning block open. */
  readonly isOpen: boolean;
  /** The end of the text. */
  readonly tail: string;
  /** The model may open a block by itself. */
  readonly mayOpen: boolean;
  readonly budget: number | null;
}

/** The prompt's tokens as the model's template makes them; also what POST /tokenize shows. */
export async function tokenizeChat(
  request: ChatRequest,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  return (await readPrompt(request, planTools(request), model, signal)).tokens;
}

async function readPrompt(
  request: ChatRequest,
  plan: ToolPlan,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Prompt> {
  const { template, format, capabilities } = model;
  const canReason = capabilities.includes('reasoning');
  const { traits } = await template.chosen(plan.tools.length > 0);
  const { kwargs, budget } = planThinking(request, traits, canReason);
  const tools = toTemplateTools(plan.tools);
  const messages = toPlainMessages(request.messages, { modelId: model.id, capabilities });
  const end = endOf(request);
  const text = await template.render({
    messages: withToolTexts(messages, tools ?? [], format, traits),
    tools,
    end,
    kwargs,
  });
  refuseOversized(text, 'messages', model.facts);
  // Device and handle are read when they are used: the model may have moved meanwhile.
  const options = { addSpecial: true, parseSpecial: true };
  const tokens = await model.device.tokenize(model.handle, text, options, signal);
  const tail = text.slice(-200);
  const isOpen = startsInReasoning(format, tail);
  // a client's own grammar is the whole answer
  const isFree = request.grammar === undefined && end === 'generation_prompt';
  // without a switch it may think although it was told not to; the budget of 0 ends that
  const isOff = kwargs.enable_thinking === false && traits.thinkingSwitches.length > 0;
  const mayOpen = canReason && !isOff && isFree;
  return { tokens, isOpen, tail, mayOpen, budget };
}
