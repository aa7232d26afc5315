/** POST /tokenize and /detokenize: what a prompt costs, and what token ids say. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { tokenIdsSchema } from 'cortex-core/wire/prompt-field';
import { z } from 'zod';
import type { ApiDeps } from './api-deps.ts';
import { promptOf, tokenizeChat } from './chat-prompt.ts';
import { readOnModel } from './generation.ts';
import { refuseOversized } from './prompt-size.ts';

const tokenizeSchema = z.looseObject({
  ...chatRequestSchema.shape,
  messages: chatRequestSchema.shape.messages.nullish(),
  content: z.string().nullish(),
  add_special: z.boolean().nullish(),
  parse_special: z.boolean().nullish(),
});

const detokenizeSchema = z.looseObject({
  model: z.string(),
  tokens: tokenIdsSchema,
});

export async function serveTokenize(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(tokenizeSchema, await exchange.json());
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  const { messages, content } = request;
  const tokens = await readOnModel(deps, model, () => {
    if (messages) return tokenizeChat({ ...request, messages }, promptOf(model), exchange.signal);
    if (typeof content === 'string') {
      refuseOversized(content, 'content', model.facts);
      const options = {
        addSpecial: request.add_special ?? false,
        parseSpecial: request.parse_special ?? true,
      };
      return model.device.tokenize(model.handle, content, options, exchange.signal);
    }
    throw new AppError('invalid_request_body', 'send "content" (a text) or "messages"', { param: 'content' });
  });
  exchange.sendJson(200, { tokens: [...tokens], count: tokens.length });
}

export async function serveDetokenize(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const { model: id, tokens } = parseBody(detokenizeSchema, await exchange.json());
  const model = await deps.registry.whenServing(id, exchange.signal);
  const wrong = tokens.find((token) => token >= model.facts.vocabSize);
  if (wrong !== undefined) {
    throw new AppError(
      'invalid_request',
      `token ${wrong} is not in the vocabulary of ${model.facts.vocabSize}`,
      {
        param: 'tokens',
      },
    );
  }
  const content = await readOnModel(deps, model, () =>
    model.device.detokenize(model.handle, Int32Array.from(tokens), exchange.signal),
  );
  exchange.sendJson(200, { content });
}
