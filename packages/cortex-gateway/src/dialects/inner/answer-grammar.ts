/**
 * Checks that events keep the grammar of answer-event.ts. The first fault is what counts: behind it nothing
 * is judged, because one wrong event makes others look wrong.
 */
import type { AnswerEvent } from './answer-event.ts';

export type GrammarRule =
  | 'no_start'
  | 'second_start'
  | 'text_inside_call'
  | 'unknown_call'
  | 'call_index'
  | 'call_id_twice'
  | 'call_left_open'
  | 'stop_without_call'
  | 'after_end'
  | 'no_end';

export class AnswerGrammar {
  #state: 'before' | 'inside' | 'stopped' | 'failed' = 'before';
  #fault: GrammarRule | null = null;
  #calls = 0;
  readonly #open = new Set<number>();
  readonly #ids = new Set<string>();

  /** The first rule that was broken so far; null = none. */
  get fault(): GrammarRule | null {
    return this.#fault;
  }

  push(event: AnswerEvent): void {
    this.#fault ??= this.#check(event);
  }

  /** Nothing more will come. Returns the first rule that was broken, null when the answer was whole. */
  end(): GrammarRule | null {
    this.#fault ??= this.#state === 'before' || this.#state === 'inside' ? 'no_end' : null;
    return this.#fault;
  }

  #check(event: AnswerEvent): GrammarRule | null {
    if (this.#state === 'failed') return 'after_end';
    if (this.#state === 'stopped') return event.type === 'usage' ? null : 'after_end';
    if (event.type === 'error') {
      this.#state = 'failed';
      return null;
    }
    if (this.#state === 'before') {
      this.#state = 'inside';
      return event.type === 'start' ? null : 'no_start';
    }
    return this.#inside(event);
  }

  #inside(event: Exclude<AnswerEvent, { readonly type: 'error' }>): GrammarRule | null {
    switch (event.type) {
      case 'start':
        return 'second_start';
      case 'reasoning':
      case 'text':
        return this.#open.size > 0 ? 'text_inside_call' : null;
      case 'call_start':
        return this.#callStart(event.index, event.id);
      case 'call_arguments':
        return this.#open.has(event.index) ? null : 'unknown_call';
      case 'call_stop':
        return this.#open.delete(event.index) ? null : 'unknown_call';
      case 'usage':
        return null;
      case 'stop':
        this.#state = 'stopped';
        if (this.#open.size > 0) return 'call_left_open';
        return event.reason === 'calls' && this.#calls === 0 ? 'stop_without_call' : null;
      default:
        return event satisfies never;
    }
  }

  #callStart(index: number, id: string): GrammarRule | null {
    if (index !== this.#calls) return 'call_index';
    this.#calls++;
    this.#open.add(index);
    if (this.#ids.has(id)) return 'call_id_twice';
    this.#ids.add(id);
    return null;
  }
}
