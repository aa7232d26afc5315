/**
 * A provider that speaks OpenAI's API. A request's bytes go on as they are but for `model`; where it has
 * fields that only neurons know, or that the provider is said to refuse, it is written anew without them. The
 * answer's bytes come back as they are, once they are known to be an answer.
 */
import { setTopLevelFields } from '../json-splice.ts';
import type { JsonObject } from '../request-body.ts';
import { jsonOf, objectOf } from '../wire-grammar/wire-grammar.ts';
import { CheckedEvents } from './checked-events.ts';
import { malformed, toProviderFault } from './provider-error.ts';
import { isNeuronField, refusesPath, type ToWireCall, type WireTarget } from './provider-wire.ts';

const paths: Readonly<Record<string, string>> = {
  '/v1/chat/completions': '/chat/completions',
  '/v1/completions': '/completions',
  '/v1/embeddings': '/embeddings',
};

export const toOpenAiCall: ToWireCall = (path, body, target) => {
  const upstreamPath = paths[path];
  if (upstreamPath === undefined) throw refusesPath(path, 'openai');
  const json = jsonOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8')) ?? {};
  return {
    path: upstreamPath,
    body: toBody(body, json, target),
    stream: json.stream === true,
    streamOut: () => new CheckedEvents(checkPiece),
    wholeOut: checkWhole,
  };
};

function toBody(body: Uint8Array, json: JsonObject, target: WireTarget): Uint8Array {
  const { model, dropFields, maxTokensField } = target;
  const dropped = Object.keys(json).filter((name) => isNeuronField(name) || dropFields.includes(name));
  const options = objectOf(json.stream_options);
  const isOurs = options !== null && 'include_prompt_usage' in options;
  const renames = maxTokensField !== 'max_tokens' && 'max_tokens' in json && !(maxTokensField in json);
  const dropsThoughts = dropFields.includes('reasoning_content');
  if (dropped.length === 0 && !isOurs && !renames && !dropsThoughts)
    return setTopLevelFields(body, { model });
  const kept: Record<string, unknown> = { ...json, model };
  for (const name of dropped) delete kept[name];
  if (isOurs && 'stream_options' in kept) {
    const { include_prompt_usage: _, ...rest } = options;
    kept.stream_options = rest;
  }
  if (renames && 'max_tokens' in kept) {
    kept[maxTokensField] = kept.max_tokens;
    delete kept.max_tokens;
  }
  if (dropsThoughts && Array.isArray(json.messages)) kept.messages = json.messages.map(withoutThoughts);
  return Buffer.from(JSON.stringify(kept));
}

function withoutThoughts(message: unknown): unknown {
  const { reasoning_content: _, ...rest } = objectOf(message) ?? {};
  return objectOf(message) === null ? message : rest;
}

/** Errors and what is no JSON never pass as a piece of an answer. */
function checkPiece(data: string): void {
  if (data === '[DONE]') return;
  const piece = jsonOf(data);
  if (piece === null) throw malformed('an event that is not JSON');
  if (piece.error !== undefined && piece.error !== null) throw toProviderFault(piece.error);
}

function checkWhole(body: Uint8Array): Uint8Array {
  const answer = jsonOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  if (answer === null) throw malformed('something that is not JSON');
  if (answer.error !== undefined && answer.error !== null) throw toProviderFault(answer.error);
  if (!Array.isArray(answer.choices) && !Array.isArray(answer.data)) {
    throw malformed('something that is not an answer');
  }
  return body;
}
