/**
 * POST /v1/chat/completions. In this order, each step with its own refusals: shape, unsupported fields,
 * model, template, tokens, context, admission, and only then a byte of the answer.
 */
import { randomUUID } from 'node:crypto';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { GenerateParams } from 'cortex-core/wire/inference';
import { type ChatChunk, chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { ChatAnswer } from '../chat/answer.ts';
import { planTools, refuseUnsupportedChat } from '../chat/chat-fields.ts';
import { mayCall, planGrammar, planReasoning } from '../chat/chat-grammar.ts';
import { toOfferedTools } from '../chat/format/offered-tools.ts';
import { toLegacyAnswer, toLegacyChunk } from '../chat/legacy-functions.ts';
import { toChatParams } from '../chat/sampling.ts';
import { sumUsages } from '../chat/usage.ts';
import type { ApiDeps } from './api-deps.ts';
import { promptOf, readPrompt } from './chat-prompt.ts';
import { goOn, readContinuation } from './continuation.ts';
import {
  assertGenerates,
  checkChoices,
  limited,
  newIdentity,
  type Presenter,
  readOnModel,
  repeatParams,
  runJob,
} from './generation.ts';

/** As many as the engine takes: the client's come first. */
const stopsMax = 64;

export async function serveChat(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const body = await exchange.json();
  const request = parseBody(chatRequestSchema, body);
  refuseUnsupportedChat(request);
  const sofar = readContinuation(exchange, body, request.stream === true);
  const n = request.n ?? 1;
  checkChoices(n, 'n');
  const plan = planTools(request);
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  assertGenerates(model);
  const grammar = planGrammar(request, plan, model.format);
  const prompt = await readOnModel(deps, model, () =>
    readPrompt(request, plan, promptOf(model), exchange.signal),
  );
  const asked = toChatParams(request, prompt.tokens, model.facts.metadata);
  const params: GenerateParams = {
    ...asked,
    grammar,
    stops: [...asked.stops, ...model.format.stops].slice(0, stopsMax),
    reasoning: planReasoning({ format: model.format, mayCall: mayCall(request, plan), ...prompt }),
  };
  const who = sofar ?? newIdentity('chatcmpl', request.model, deps);
  const fresh = repeatParams(limited(params, 'messages', model, deps), n);
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
    generations: sofar === null ? fresh : goOn(exchange, model, fresh, sofar),
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
