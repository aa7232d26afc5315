/**
 * One item of an output from its first event to its last: added, its text in pieces, done. What it was at
 * its end is what the response holds and the store keeps.
 */
import type { ResponseItemStatus, ResponseOutputItem } from 'cortex-core/wire/responses';

/** An event without its number. */
export type ResponseEvent = { readonly type: string } & Readonly<Record<string, unknown>>;
export type SendEvent = (event: ResponseEvent) => void;

/** The item as it will be with `text` and in `status`. */
export type MakeItem = (status: ResponseItemStatus, text: string) => ResponseOutputItem;

export class ItemWriter {
  readonly #place: { readonly item_id: string; readonly output_index: number };
  readonly #make: MakeItem;
  readonly #kind: ItemKind;
  readonly #send: SendEvent;
  #text = '';

  /** Sends the events that open it. */
  constructor(index: number, make: MakeItem, send: SendEvent) {
    const item = make('in_progress', '');
    this.#place = { item_id: item.id, output_index: index };
    this.#make = make;
    this.#kind = kindOf(item);
    this.#send = send;
    send({ type: 'response.output_item.added', output_index: index, item: withoutParts(item) });
    const { opens, at } = this.#kind;
    if (opens !== null) this.#send({ type: opens, ...this.#place, ...at, part: this.#part() });
  }

  get text(): string {
    return this.#text;
  }

  append(text: string): void {
    if (text === '') return;
    this.#text += text;
    const { delta, at, more } = this.#kind;
    if (delta !== null) this.#send({ type: delta, ...this.#place, ...at, delta: text, ...more });
  }

  /** Sends the events that close it. */
  close(status: 'completed' | 'incomplete'): ResponseOutputItem {
    const { done, closes, at, more, field } = this.#kind;
    const item = this.#make(status, this.#text);
    const named = item.type === 'function_call' ? { name: item.name } : {};
    if (done !== null)
      this.#send({ type: done, ...this.#place, ...at, [field]: this.#text, ...named, ...more });
    if (closes !== null) this.#send({ type: closes, ...this.#place, ...at, part: this.#part() });
    this.#send({ type: 'response.output_item.done', output_index: this.#place.output_index, item });
    return item;
  }

  /** As it is now, for an answer that broke off. */
  broken(): ResponseOutputItem {
    return this.#make('incomplete', this.#text);
  }

  #part(): unknown {
    const item = this.#make('in_progress', this.#text);
    if (item.type === 'message') return item.content[0];
    if (item.type === 'reasoning') return item.summary[0] ?? item.content?.[0];
    return null;
  }
}

interface ItemKind {
  readonly opens: string | null;
  readonly delta: string | null;
  readonly done: string | null;
  readonly closes: string | null;
  readonly at: Readonly<Record<string, number>>;
  readonly more: Readonly<Record<string, unknown>>;
  /** What the text is called when it is done. */
  readonly field: 'text' | 'arguments' | 'input';
}

function kindOf(item: ResponseOutputItem): ItemKind {
  switch (item.type) {
    case 'message':
      return { ...contentKind('output_text'), more: { logprobs: [] } };
    case 'reasoning':
      return item.summary.length === 0 ? contentKind('reasoning_text') : summaryKind;
    case 'function_call':
      return callKind('function_call_arguments', 'arguments');
    case 'custom_tool_call':
      return callKind('custom_tool_call_input', 'input');
    case 'tool_search_call':
      return { ...callKind('', 'arguments'), delta: null, done: null };
    default:
      return item satisfies never;
  }
}

function contentKind(name: string): ItemKind {
  return {
    opens: 'response.content_part.added',
    delta: `response.${name}.delta`,
    done: `response.${name}.done`,
    closes: 'response.content_part.done',
    ...{ at: { content_index: 0 }, more: {}, field: 'text' },
  };
}

const summaryKind: ItemKind = {
  opens: 'response.reasoning_summary_part.added',
  delta: 'response.reasoning_summary_text.delta',
  done: 'response.reasoning_summary_text.done',
  closes: 'response.reasoning_summary_part.done',
  ...{ at: { summary_index: 0 }, more: {}, field: 'text' },
};

function callKind(name: string, field: ItemKind['field']): ItemKind {
  const [delta, done] = [`response.${name}.delta`, `response.${name}.done`];
  return { opens: null, delta, done, closes: null, at: {}, more: {}, field };
}

/** Parts are added by events of their own. */
function withoutParts(item: ResponseOutputItem): ResponseOutputItem {
  if (item.type === 'message') return { ...item, content: [] };
  if (item.type !== 'reasoning') return item;
  return { ...item, summary: [], ...(item.content === undefined ? {} : { content: [] }) };
}
