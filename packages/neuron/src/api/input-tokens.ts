/**
 * POST /v1/chat/completions/input_tokens: how many tokens the prompt of a chat request has, which is the
 * `usage.prompt_tokens` of its answer. It takes the request as it would be sent, also of a model that is not
 * loaded but whose file is here. Nothing is loaded, woken or kept, and no device that streams is asked
 * (models/prompt-models.ts). A prompt beyond the context is counted, not refused.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { type ChatRequest, chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { refuseUnsupportedChat } from '../chat/chat-fields.ts';
import type { PromptModel } from '../models/prompt-models.ts';
import type { ApiDeps } from './api-deps.ts';
import { promptOf, tokenizeChat } from './chat-prompt.ts';
import { assertGenerates, onModel } from './generation.ts';

export async function serveInputTokens(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(chatRequestSchema, await exchange.json());
  refuseUnsupportedChat(request);
  const tokens = await countPrompt(deps, request, exchange.signal);
  exchange.sendJson(200, { object: 'chat.completion.input_tokens', input_tokens: tokens });
}

async function countPrompt(deps: ApiDeps, request: ChatRequest, signal: AbortSignal): Promise<number> {
  const { registry, promptModels } = deps;
  const { model: id } = request;
  const count = async (model: PromptModel): Promise<number> => {
    assertGenerates(model);
    return (await tokenizeChat(request, model, signal)).length;
  };
  if (promptModels === null) {
    // Devices that were given come without a library to read files with.
    const model = registry.serving(id);
    return onModel(deps, model, () => count(promptOf(model)));
  }
  const file = await registry.fileOf(id);
  if (file === null) throw unknown(id);
  return promptModels.with(id, file, count);
}

function unknown(id: string): AppError {
  const name = id.slice(0, 200);
  return new AppError('model_not_found', `model "${name}" is neither loaded nor on the disk of this neuron`, {
    param: 'model',
    extras: { model_id: name },
  });
}
