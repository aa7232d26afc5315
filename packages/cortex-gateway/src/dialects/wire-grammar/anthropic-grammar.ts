/**
 * The grammar of Anthropic's stream: message_start, blocks one after the other with indexes from 0, each
 * opened and closed once, message_delta, message_stop; pings anywhere; an error ends it at any place.
 */
import type { SseEvent } from 'cortex-core/wire/sse';
import { isCutJson } from '../partial-json.ts';
import type { JsonObject } from '../request-body.ts';
import { jsonOf, objectOf, SseGrammar } from './wire-grammar.ts';

const deltaOf: Readonly<Record<string, readonly string[]>> = {
  text: ['text_delta'],
  thinking: ['thinking_delta', 'signature_delta'],
  tool_use: ['input_json_delta'],
};

export class AnthropicGrammar extends SseGrammar {
  #state: 'before' | 'inside' | 'stopping' | 'over' = 'before';
  #blocks = 0;
  #open: string | null = null;
  #isSigned = false;
  #input = '';
  #inputFault: 'input_cut' | 'input_not_json' | null = null;
  #calls = 0;

  protected check({ event, data }: SseEvent): string | null {
    if (this.#state === 'over') return 'after_end';
    const value = jsonOf(data);
    if (value === null) return 'not_json';
    if (value.type !== event) return 'event_name';
    if (event === 'ping') return null;
    if (event === 'error') {
      this.#state = 'over';
      return typeof objectOf(value.error)?.type === 'string' ? null : 'error_shape';
    }
    if (this.#state === 'before') return event === 'message_start' ? this.#start(value) : 'no_message_start';
    if (this.#state === 'stopping') {
      if (event !== 'message_stop') return 'after_message_delta';
      this.#state = 'over';
      return null;
    }
    return this.#inside(event, value);
  }

  protected checkEnd(): string | null {
    return this.#state === 'over' ? null : 'no_message_stop';
  }

  #start({ message }: JsonObject): string | null {
    this.#state = 'inside';
    const { id, role, model, content, stop_reason: reason, usage } = objectOf(message) ?? {};
    const isWhole =
      typeof id === 'string' && id.startsWith('msg_') && role === 'assistant' && typeof model === 'string';
    const isEmpty = Array.isArray(content) && content.length === 0 && reason === null;
    return isWhole && isEmpty && isCount(objectOf(usage)?.input_tokens) ? null : 'message_start_shape';
  }

  #inside(event: string, value: JsonObject): string | null {
    switch (event) {
      case 'message_start':
        return 'second_message_start';
      case 'content_block_start':
        return this.#blockStart(value);
      case 'content_block_delta':
        return this.#blockDelta(value);
      case 'content_block_stop':
        return this.#blockStop(value);
      case 'message_delta':
        return this.#messageDelta(value);
      case 'message_stop':
        return 'no_message_delta';
      default:
        return 'unknown_event';
    }
  }

  #blockStart({ index, content_block: block }: JsonObject): string | null {
    if (this.#open !== null) return 'block_left_open';
    if (index !== this.#blocks) return 'block_index';
    const { type, text, thinking, id, name } = objectOf(block) ?? {};
    const isEmpty =
      (type === 'text' && text === '') ||
      (type === 'thinking' && thinking === '') ||
      (type === 'tool_use' && typeof id === 'string' && id !== '' && typeof name === 'string');
    if (typeof type !== 'string' || !isEmpty) return 'block_shape';
    if (type === 'tool_use') this.#calls++;
    this.#open = type;
    this.#isSigned = false;
    this.#input = '';
    return null;
  }

  #blockDelta({ index, delta }: JsonObject): string | null {
    if (this.#open === null) return 'delta_outside_block';
    if (index !== this.#blocks) return 'block_index';
    const { type, partial_json: input, signature } = objectOf(delta) ?? {};
    if (typeof type !== 'string' || deltaOf[this.#open]?.includes(type) !== true) return 'delta_kind';
    if (this.#isSigned) return 'delta_after_signature';
    if (type === 'input_json_delta') this.#input += String(input);
    if (type === 'signature_delta') {
      this.#isSigned = true;
      return typeof signature === 'string' && signature !== '' ? null : 'empty_signature';
    }
    return null;
  }

  #blockStop({ index }: JsonObject): string | null {
    if (this.#open === null) return 'stop_outside_block';
    if (index !== this.#blocks) return 'block_index';
    if (this.#open === 'thinking' && !this.#isSigned) return 'thinking_without_signature';
    if (this.#open === 'tool_use' && this.#input !== '' && jsonOf(this.#input) === null) {
      this.#inputFault ??= isCutJson(this.#input) ? 'input_cut' : 'input_not_json';
    }
    this.#open = null;
    this.#blocks++;
    return null;
  }

  #messageDelta({ delta, usage }: JsonObject): string | null {
    if (this.#open !== null) return 'block_left_open';
    this.#state = 'stopping';
    const { stop_reason: reason, stop_sequence: sequence } = objectOf(delta) ?? {};
    if (typeof reason !== 'string' || !isCount(objectOf(usage)?.output_tokens)) return 'message_delta_shape';
    if ((reason === 'stop_sequence') !== (typeof sequence === 'string')) return 'stop_sequence_shape';
    if (reason === 'tool_use' && this.#calls === 0) return 'tool_use_without_call';
    // a call that was cut off is only right where the answer was
    return reason === 'tool_use' ? this.#inputFault : null;
  }
}

function isCount(value: unknown): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0;
}
