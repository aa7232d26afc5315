/** The neuron's side of an answer that goes on: cortex-core/wire/continuation.ts has the wire. */
import type { Exchange } from 'cortex-core/daemon/http-server';
import {
  type Continuation,
  continuationField,
  continuationSchema,
  continuedHeader,
  tokensHeader,
} from 'cortex-core/wire/continuation';
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams } from 'cortex-core/wire/inference';
import { parseBody } from 'cortex-core/wire/openai';
import type { ServingModel } from '../models/model-entry.ts';
import { checkTokens } from './prompt-size.ts';

/** Whether the answer's tokens are wanted beside its events. Who may ask at all has the neuron's key. */
export function tellsTokens(exchange: Exchange): boolean {
  const wanted = exchange.header(tokensHeader);
  return wanted === 'tell' || wanted === 'continue';
}

/** The answer so far; null for a new one. Without the header the field is any other unknown one. */
export function readContinuation(
  exchange: Exchange,
  body: unknown,
  isStreamed: boolean,
): Continuation | null {
  if (exchange.header(tokensHeader) !== 'continue') return null;
  const { [continuationField]: field } = body as Readonly<Record<string, unknown>>;
  if (!isStreamed) {
    throw new AppError('invalid_request', 'only a streamed answer can go on; set "stream": true', {
      param: 'stream',
    });
  }
  if (field === undefined) {
    const message = `"${tokensHeader}: continue" needs "${continuationField}": the answer so far`;
    throw new AppError('invalid_request', message, { param: continuationField });
  }
  return parseBody(continuationSchema, field);
}

/** The one generation, behind what it has already; the client learns that it was understood. */
export function goOn(
  exchange: Exchange,
  { facts }: ServingModel,
  generations: readonly GenerateParams[],
  { tokens }: Continuation,
): readonly GenerateParams[] {
  const [params] = generations;
  if (params === undefined || generations.length > 1) {
    throw new AppError('invalid_request', 'one answer can go on, not several; leave "n" out', { param: 'n' });
  }
  const answered = checkTokens(tokens, `${continuationField}.tokens`, facts);
  exchange.response.setHeader(continuedHeader, String(answered.length));
  return [{ ...params, answered }];
}
