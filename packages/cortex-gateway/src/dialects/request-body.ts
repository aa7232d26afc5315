import { checkBodySize } from 'cortex-core/wire/body-size';
import { AppError } from 'cortex-core/wire/errors';
import { checkJsonNesting } from 'cortex-core/wire/json-scan';

export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * The body as a JSON object, within what a body may hold; `malformed_json` or `invalid_request` otherwise.
 * Content-type plays no part.
 */
export function parseObject(body: Uint8Array): JsonObject {
  if (body.length === 0) throw new AppError('malformed_json', 'the request has no body; send a JSON object');
  checkJsonNesting(body);
  const text = decode(body);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    const at = /position (\d+)/.exec(String(cause))?.[1];
    const where = at === undefined ? '' : ` (at character ${at})`;
    throw new AppError('malformed_json', `the body is not valid JSON${where}; send one JSON object`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AppError('invalid_request', 'the body must be a JSON object');
  }
  checkBodySize(value as JsonObject);
  return value as JsonObject;
}

/** RFC 8259, 8.1: JSON is UTF-8. Bytes that are none would reach the model as other text than was sent. */
function decode(body: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw new AppError('malformed_json', 'the body is not valid UTF-8; send JSON encoded as UTF-8');
  }
}

export function modelOf(body: JsonObject): string {
  const { model } = body;
  if (typeof model === 'string' && model !== '' && model.length <= 512) return model;
  const message = 'the request has no "model"; set it to an id that GET /v1/models lists';
  throw new AppError('missing_model_field', message, { param: 'model' });
}

/** Characters of all text in messages, plus eight for each message's frame, at four a token. */
export function estimateChatTokens(messages: unknown): number {
  if (!Array.isArray(messages)) return 1;
  let chars = 0;
  for (const message of messages) {
    chars += 8;
    if (typeof message === 'object' && message !== null) chars += textLength(message.content);
  }
  return Math.max(1, Math.ceil(chars / 4));
}

function textLength(content: unknown): number {
  if (typeof content === 'string') return content.length;
  if (!Array.isArray(content)) return 0;
  let chars = 0;
  for (const part of content) {
    if (typeof part === 'object' && part !== null && typeof part.text === 'string') chars += part.text.length;
  }
  return chars;
}

/** Those of `defaults` that the body does not say; null is unsaid. */
export function unsaid(body: JsonObject, defaults: JsonObject = {}): JsonObject {
  return Object.fromEntries(Object.entries(defaults).filter(([key]) => (body[key] ?? null) === null));
}

export function positiveIntOrNull(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : null;
}
