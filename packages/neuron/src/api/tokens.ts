/** POST /tokenize and /detokenize: what a prompt costs, and what token ids say. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { z } from 'zod';
import type { ApiDeps } from './api-deps.ts';
import { tokenizeChat } from './inference.ts';

const tokenizeSchema = z.looseObject({
  ...chatRequestSchema.shape,
  messages: chatRequestSchema.shape.messages.optional(),
  content: z.string().optional(),
  add_special: z.boolean().default(false),
  parse_special: z.boolean().default(true),
});

const detokenizeSchema = z.looseObject({
  model: z.string(),
  tokens: z.array(z.number().int().min(0)).max(1_000_000),
});

export async function serveTokenize(deps: ApiDeps, exchange: Exchange): Promise<void> {
  const request = parseBody(tokenizeSchema, await exchange.json());
  const model = await deps.registry.whenServing(request.model, exchange.signal);
  const { messages, content } = request;
  let tokens: Int32Array;
  if (messages !== undefined) {
    tokens = await tokenizeChat({ ...request, messages }, model, exchange.signal);
  } else if (content !== undefined) {
    const options = { addSpecial: request.add_special, parseSpecial: request.parse_special };
    tokens = await model.device.tokenize(model.handle, content, options, exchange.signal);
  } else {
    throw new AppError('invalid_request_body', 'send "content" (a text) or "messages"', { param: 'content' });
  }
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
  const content = await model.device.detokenize(model.handle, Int32Array.from(tokens), exchange.signal);
  exchange.sendJson(200, { content });
}
