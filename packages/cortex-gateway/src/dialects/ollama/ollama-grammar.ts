/**
 * Checks a stream of Ollama's lines as a client reads it: parts that are not done, then one that is, with
 * its reason; or an error as the last line. Tells the first rule that was broken.
 */
import type { OllamaShape } from './ollama-answer.ts';

/** A line beyond this is not read; nothing is judged from then on. */
const lineCharsMax = 4 * 1024 * 1024;

export class OllamaGrammar {
  readonly #shape: OllamaShape;
  readonly #decoder = new TextDecoder();
  #rest = '';
  #isOver = false;
  #isBlind = false;
  #fault: string | null = null;
  #calls = 0;

  constructor(shape: OllamaShape) {
    this.#shape = shape;
  }

  /** Never throws. */
  push(bytes: Uint8Array): void {
    if (this.#isBlind || this.#fault !== null) return;
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop() ?? '';
    this.#isBlind = this.#rest.length > lineCharsMax;
    for (const line of lines) this.#fault ??= this.#line(line);
  }

  /** The stream has ended. The name of the first rule that was broken; null = none. */
  end(): string | null {
    if (this.#isBlind) return null;
    if (this.#fault !== null) return this.#fault;
    if (this.#rest !== '') return 'half_a_line';
    return this.#isOver ? null : 'no_end';
  }

  #line(line: string): string | null {
    const value = objectOf(line);
    if (value === null) return 'not_json';
    if (this.#isOver) return 'after_end';
    if (value.error !== undefined) {
      this.#isOver = true;
      return typeof value.error === 'string' && value.done === undefined ? null : 'error_shape';
    }
    if (typeof value.model !== 'string' || typeof value.created_at !== 'string') return 'line_shape';
    const body = this.#shape === 'chat' ? value.message : { role: 'assistant', content: value.response };
    const fault = this.#body(body as Body | null | undefined);
    if (fault !== null) return fault;
    if (value.done === false) return value.done_reason === undefined ? null : 'early_reason';
    if (value.done !== true) return 'no_done';
    this.#isOver = true;
    return ['stop', 'length', 'load', 'unload'].includes(String(value.done_reason)) ? null : 'done_reason';
  }

  #body(body: Body | null | undefined): string | null {
    if (body?.role !== 'assistant' || typeof body.content !== 'string') return 'body_shape';
    if (body.thinking !== undefined && typeof body.thinking !== 'string') return 'body_shape';
    for (const call of body.tool_calls ?? []) {
      const { name, arguments: given } = call?.function ?? {};
      const isObject = typeof given === 'object' && given !== null && !Array.isArray(given);
      if (typeof name !== 'string' || !isObject) return 'call_shape';
      if (call.function?.index !== this.#calls++) return 'call_index';
    }
    return null;
  }
}

interface Body {
  readonly role?: unknown;
  readonly content?: unknown;
  readonly thinking?: unknown;
  readonly tool_calls?: readonly {
    readonly function?: { readonly name?: unknown; readonly arguments?: unknown; readonly index?: unknown };
  }[];
}

function objectOf(line: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(line);
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Readonly<Record<string, unknown>>) : null;
  } catch {
    return null;
  }
}
