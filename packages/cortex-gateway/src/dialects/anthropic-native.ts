/**
 * A Messages request for an upstream that speaks Anthropic's API itself: nothing is translated, so that
 * thinking blocks keep the signatures that the upstream wants to see again. Usage is read in passing.
 */
import { AppError, toAnthropicEnvelope } from 'cortex-core/wire/errors';
import { encodeSse, SseParser } from 'cortex-core/wire/sse';
import type { TokenUsage } from './answer-probe.ts';
import type { NativeForm, StreamOut, StreamProbe } from './dialect.ts';
import { WholeEvents } from './whole-events.ts';
import { jsonOf, objectOf } from './wire-grammar/wire-grammar.ts';

export function nativeMessages(body: Uint8Array): NativeForm {
  return {
    wire: 'messages',
    path: '/v1/messages',
    body,
    streamOut: (requestId) => new NativeStream(requestId),
    probe: () => new MessagesProbe(),
    usageOf: (answer) => {
      const text = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength).toString('utf8');
      return toUsage(jsonOf(text)?.usage, null);
    },
  };
}

class NativeStream implements StreamOut {
  readonly pingsDuringAnswer = false;
  readonly #requestId: string;
  readonly #events = new WholeEvents();
  readonly #probe = new MessagesProbe();

  constructor(requestId: string) {
    this.#requestId = requestId;
  }

  push(chunk: Uint8Array): Uint8Array {
    this.#probe.push(chunk, 0);
    return this.#events.push(chunk);
  }

  end(): Uint8Array {
    this.#events.drop(); // half an event is none
    if (this.#probe.finished) return new Uint8Array(0);
    throw new AppError('upstream_connection_error', 'the answer broke off before it was complete; try again');
  }

  error(error: AppError): Uint8Array {
    this.#events.drop();
    return Buffer.from(encodeSse(toAnthropicEnvelope(error, this.#requestId), 'error'));
  }

  keepAlive(): Uint8Array {
    return this.#events.isBetween ? Buffer.from(encodeSse({ type: 'ping' }, 'ping')) : new Uint8Array(0);
  }
}

const eventBytesMax = 4 * 1024 * 1024;

class MessagesProbe implements StreamProbe {
  #parser: SseParser | null = new SseParser(eventBytesMax);
  finished = false;
  usage: TokenUsage | null = null;
  firstTokenMs: number | null = null;
  lastTokenMs: number | null = null;

  push(chunk: Uint8Array, nowMs: number): void {
    if (this.#parser === null) return;
    try {
      for (const { data } of this.#parser.push(chunk)) this.#event(jsonOf(data) ?? {}, nowMs);
    } catch {
      // an event beyond the limit: give up on usage, and do not call the answer incomplete
      this.#parser = null;
      this.finished = true;
    }
  }

  #event(event: Readonly<Record<string, unknown>>, nowMs: number): void {
    switch (event.type) {
      case 'message_start':
        this.usage = toUsage(objectOf(event.message)?.usage, this.usage);
        break;
      case 'content_block_delta':
        this.firstTokenMs ??= nowMs;
        this.lastTokenMs = nowMs;
        break;
      case 'message_delta':
        this.usage = toUsage(event.usage, this.usage);
        break;
      case 'message_stop':
        this.finished = true;
        break;
      default:
    }
  }
}

/** The counts are totals so far; what a later event leaves out stays. */
function toUsage(value: unknown, before: TokenUsage | null): TokenUsage | null {
  const usage = objectOf(value);
  if (usage === null) return before;
  const cached = count(usage.cache_read_input_tokens);
  const prompt = count(usage.input_tokens) + cached + count(usage.cache_creation_input_tokens);
  return {
    isReported: true,
    promptTokens: Math.max(prompt, before?.promptTokens ?? 0),
    cachedTokens: Math.max(cached, before?.cachedTokens ?? 0),
    completionTokens: Math.max(count(usage.output_tokens), before?.completionTokens ?? 0),
  };
}

function count(value: unknown): number {
  return typeof value === 'number' && value > 0 ? Math.floor(value) : 0;
}
