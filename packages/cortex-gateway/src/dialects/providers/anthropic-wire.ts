/**
 * A provider that speaks Anthropic's API. A chat request is translated, and so is its answer. A Messages
 * request of a client (`/v1/messages`) goes on as it is but for `model`, and its answer comes back as it is:
 * thinking blocks keep the signatures that the provider wants to see again.
 */
import { AppError } from 'cortex-core/wire/errors';
import { sseKeepAlive } from 'cortex-core/wire/sse';
import { setTopLevelFields } from '../json-splice.ts';
import { JsonEnd } from '../partial-json.ts';
import type { JsonObject } from '../request-body.ts';
import { jsonOf, objectOf } from '../wire-grammar/wire-grammar.ts';
import { AnthropicAnswerReader, readAnthropicAnswer } from './anthropic-answer-reader.ts';
import { ChatStreamWriter, type ChatWriterOptions, toChatCompletion } from './chat-writer.ts';
import { CheckedEvents } from './checked-events.ts';
import { malformed, toProviderFault } from './provider-error.ts';
import {
  type ProviderStream,
  refusesPath,
  type ToWireCall,
  type WireCall,
  type WireTarget,
} from './provider-wire.ts';
import { readChatRequest } from './read-chat-request.ts';
import { toAnthropicBody } from './to-anthropic-body.ts';

const messagesPath = '/v1/messages';
const countPath = '/v1/messages/count_tokens';

export const toAnthropicCall: ToWireCall = (path, body, target) => {
  const json = jsonOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8')) ?? {};
  if (path === messagesPath) return toVerbatim(body, json, target);
  if (path === '/v1/chat/completions') return toTranslated(json, target);
  if (path === countPath) return toCount({ ...json, model: target.model });
  if (path === '/v1/chat/completions/input_tokens') {
    return toCount(toAnthropicBody(readChatRequest(json), target));
  }
  throw refusesPath(path, 'anthropic');
};

function toVerbatim(body: Uint8Array, json: JsonObject, { model }: WireTarget): WireCall {
  return {
    path: messagesPath,
    body: setTopLevelFields(body, { model }),
    stream: json.stream === true,
    streamOut: checkedMessage,
    wholeOut: checkMessage,
  };
}

function toTranslated(json: JsonObject, target: WireTarget): WireCall {
  refuseUnknown(json);
  const inner = readChatRequest(json);
  const options: ChatWriterOptions = {
    model: inner.model,
    createdSecs: target.createdSecs,
    tellsUsage: objectOf(json.stream_options)?.include_usage === true,
  };
  return {
    path: messagesPath,
    body: Buffer.from(JSON.stringify(toAnthropicBody(inner, target))),
    stream: inner.stream,
    streamOut: () => new ChatFromMessages(options),
    wholeOut: (answer) => Buffer.from(JSON.stringify(toChatCompletion(readAnthropicAnswer(answer), options))),
  };
}

/** What of a request costs tokens; the API refuses other fields here. */
const countedFields = ['model', 'messages', 'system', 'tools', 'tool_choice', 'thinking', 'output_config'];
/** Of a client that speaks the API itself: a beta of it may have been asked for. */
const betaFields = ['mcp_servers', 'context_management', 'cache_control'];

function toCount(json: JsonObject): WireCall {
  const fields = Object.entries(json).filter(([name]) => [...countedFields, ...betaFields].includes(name));
  return {
    path: countPath,
    body: Buffer.from(JSON.stringify(Object.fromEntries(fields))),
    stream: false,
    streamOut: checkedMessage,
    wholeOut: checkCount,
  };
}

function checkCount(body: Uint8Array): Uint8Array {
  const answer = jsonOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  if (typeof answer?.input_tokens === 'number') return body;
  throw malformed('something that is not a number of tokens');
}

/** What would come back in another shape than the client reads is refused; what only colours it is not. */
function refuseUnknown(json: JsonObject): void {
  if (typeof json.n === 'number' && json.n > 1) throw refused('n', 'gives one answer');
  if (json.logprobs === true) throw refused('logprobs', 'does not tell probabilities');
}

function refused(param: string, what: string): AppError {
  return new AppError('unsupported_parameter', `${param}: the provider of this model ${what}; leave it out`, {
    param,
  });
}

class ChatFromMessages implements ProviderStream {
  readonly #reader = new AnthropicAnswerReader();
  readonly #writer: ChatStreamWriter;
  #failure: unknown = null;

  constructor(options: ChatWriterOptions) {
    this.#writer = new ChatStreamWriter(options);
  }

  /** What was read before a fault goes out; the next call throws. */
  push(chunk: Uint8Array): Uint8Array {
    if (this.#failure !== null) throw this.#failure;
    if (chunk.length === 0) return chunk;
    let text = '';
    for (const event of this.#reader.push(chunk)) {
      if (event.type === 'error') this.#failure = event.error;
      else text += this.#writer.write([event]);
    }
    if (this.#reader.finished) text += this.#writer.end();
    if (text === '' && this.#failure !== null) throw this.#failure;
    // a ping, or half an event: the client hears that there is life
    return Buffer.from(text === '' ? sseKeepAlive : text);
  }

  end(): Uint8Array {
    if (this.#failure !== null) throw this.#failure;
    return Buffer.from(this.#writer.write(this.#reader.end()) + this.#writer.end());
  }
}

function checkedMessage(): ProviderStream {
  let isFinished = false;
  let input = new JsonEnd();
  let isCut = false;
  const check = (data: string): void => {
    const event = jsonOf(data);
    if (event === null || typeof event.type !== 'string') throw malformed('an event that is not JSON');
    if (event.type === 'error') throw toProviderFault(event.error);
    if (event.type === 'content_block_start') input = new JsonEnd();
    const { partial_json: piece, stop_reason: reason } = objectOf(event.delta) ?? {};
    if (typeof piece === 'string') input.push(piece);
    if (event.type === 'content_block_stop') isCut ||= input.isCut;
    if (reason === 'tool_use' && isCut) throw malformed('a call that ends in the middle of its input');
    if (event.type === 'message_stop') isFinished = true;
  };
  return new CheckedEvents(check, () => {
    if (isFinished) return;
    throw new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
  });
}

function checkMessage(body: Uint8Array): Uint8Array {
  const answer = jsonOf(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  if (answer === null) throw malformed('something that is not JSON');
  if (answer.type === 'error') throw toProviderFault(answer.error);
  if (!Array.isArray(answer.content)) throw malformed('something that is not a message');
  return body;
}
