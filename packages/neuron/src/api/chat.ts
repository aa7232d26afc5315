/**
 * POST /v1/chat/completions. In this order, each step with its own refusals: shape, unsupported fields,
 * model, template, tokens, context, admission, and only then a byte of the answer.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { type ChatChunk, type ChatRequest, chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { ChatAnswer, toUsage } from '../chat/answer.ts';
import { endOf, planThinking, planTools, refuseUnsupportedChat } from '../chat/chat-fields.ts';
import { toResponseGrammar } from '../chat/grammar/response-grammar.ts';
import { toPlainMessages, toTemplateTools } from '../chat/messages.ts';
import { toChatParams } from '../chat/sampling.ts';
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

export async function serveChat(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(chatRequestSchema, await exchange.json());
  refuseUnsupportedChat(request);
  const n = request.n ?? 1;
  checkChoices(n, 'n');
  const { tools } = planTools(request);
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  assertGenerates(model);
  const tokens = await onModel(deps, model, () => tokenizeChat(request, model, exchange.signal));
  const grammar = toResponseGrammar(request.response_format);
  const asked = toChatParams(request, tokens, model.facts.metadata);
  const params = limited(grammar === null ? asked : { ...asked, grammar }, 'messages', model, deps);
  const who = newIdentity('chatcmpl', request.model, deps);
  const answers = Array.from({ length: n }, () => new ChatAnswer(who, { parseToolCalls: tools.length > 0 }));
  await runJob(deps, exchange, {
    request,
    model,
    generations: repeatParams(params, n),
    presenter: presentChat(answers),
  });
}

/** The choices of one request as one stream, or one answer. */
function presentChat(answers: readonly ChatAnswer[]): Presenter {
  const answerAt = (at: number): ChatAnswer => answers[at] as ChatAnswer;
  const placed = (at: number, chunks: readonly ChatChunk[]): readonly ChatChunk[] => {
    if (at === 0) return chunks;
    return chunks.map((chunk) => ({
      ...chunk,
      choices: chunk.choices.map((each) => ({ ...each, index: at })),
    }));
  };
  return {
    begin: (at) => placed(at, [answerAt(at).begin()]),
    step: (at, event) => placed(at, answerAt(at).step(event)),
    finish: (at, result) => placed(at, answerAt(at).finish(result)),
    usage: (results, timings) => {
      const [first] = results;
      if (first === undefined) return null;
      const usage = sumUsages(results.map(toUsage), results.length);
      return { ...answerAt(0).usageChunk(first, timings), usage };
    },
    whole: (results, timings) => {
      const wholes = results.map((result, at) => answerAt(at).whole(result, timings));
      const choices = wholes.flatMap(({ choices: own }, at) =>
        own.map((choice) => ({ ...choice, index: at })),
      );
      const usage = sumUsages(
        wholes.map((whole) => whole.usage),
        results.length,
      );
      return { ...wholes[0], choices, usage };
    },
  };
}

/** The prompt's tokens as the model's template makes them; also what POST /tokenize shows. */
export async function tokenizeChat(
  request: ChatRequest,
  model: ServingModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  const { tools } = planTools(request);
  const { traits } = await model.template.chosen(tools.length > 0);
  const { kwargs } = planThinking(request, traits, model.capabilities.includes('reasoning'));
  const text = await model.template.render({
    messages: toPlainMessages(request.messages, { modelId: model.id, capabilities: model.capabilities }),
    tools: toTemplateTools(tools),
    end: endOf(request),
    kwargs,
  });
  return model.device.tokenize(model.handle, text, { addSpecial: true, parseSpecial: true }, signal);
}
