/**
 * The grammar of OpenAI's chat and completion streams: chunks of one id, each with a list of choices; of each
 * choice pieces and then one finish reason; usage behind; `[DONE]`. An error ends it at any place.
 */
import type { SseEvent } from 'cortex-core/wire/sse';
import type { JsonObject } from '../request-body.ts';
import { jsonOf, objectOf, SseGrammar } from './wire-grammar.ts';

export class OpenAiGrammar extends SseGrammar {
  readonly #kind: 'chat' | 'completions';
  #id: unknown;
  #isOver = false;
  readonly #finished = new Map<number, boolean>();
  /** Calls that have begun, as `choice.call`. */
  readonly #calls = new Set<string>();

  constructor(kind: 'chat' | 'completions') {
    super();
    this.#kind = kind;
  }

  protected check({ data }: SseEvent): string | null {
    if (this.#isOver) return 'after_end';
    if (data === '[DONE]') {
      this.#isOver = true;
      return this.#unfinished ? 'no_finish_reason' : null;
    }
    const value = jsonOf(data);
    if (value === null) return 'not_json';
    if (value.error !== undefined && value.error !== null) {
      this.#isOver = true;
      return typeof objectOf(value.error)?.message === 'string' ? null : 'error_shape';
    }
    this.#id ??= value.id;
    if (typeof value.id !== 'string' || value.id !== this.#id) return 'chunk_id';
    const object = this.#kind === 'chat' ? 'chat.completion.chunk' : 'text_completion';
    if (value.object !== object || typeof value.model !== 'string') return 'chunk_shape';
    if (!Array.isArray(value.choices)) return 'no_choices';
    for (const choice of value.choices) {
      const fault = this.#choice(objectOf(choice));
      if (fault !== null) return fault;
    }
    return null;
  }

  /** Some engines leave out `[DONE]`; no client misses it. */
  protected checkEnd(): string | null {
    return this.#isOver || (this.#finished.size > 0 && !this.#unfinished) ? null : 'no_end';
  }

  get #unfinished(): boolean {
    return this.#finished.size === 0 || [...this.#finished.values()].includes(false);
  }

  #choice(choice: JsonObject | null): string | null {
    if (choice === null || typeof choice.index !== 'number') return 'choice_index';
    const { index, finish_reason: reason } = choice;
    if (this.#finished.get(index) === true) return 'after_finish_reason';
    this.#finished.set(index, typeof reason === 'string');
    if (this.#kind === 'completions') return typeof choice.text === 'string' ? null : 'choice_shape';
    const delta = objectOf(choice.delta);
    if (delta === null) return 'choice_shape';
    if (delta.role !== undefined && delta.role !== null && delta.role !== 'assistant') return 'role';
    return this.#toolCalls(index, delta.tool_calls ?? []);
  }

  #toolCalls(choice: number, calls: unknown): string | null {
    if (!Array.isArray(calls)) return 'call_shape';
    for (const each of calls) {
      const call = objectOf(each);
      const given = objectOf(call?.function);
      if (call === null || given === null || typeof call.index !== 'number') return 'call_shape';
      const key = `${choice}.${call.index}`;
      if (this.#calls.has(key)) continue;
      this.#calls.add(key);
      if (typeof call.id !== 'string' || typeof given.name !== 'string') return 'call_without_id';
    }
    return null;
  }
}
