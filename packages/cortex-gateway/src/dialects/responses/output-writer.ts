/**
 * The events of an answer -> items of a response and the events that tell them. Streams send the events,
 * whole answers only take the items: both are one.
 *
 * Design: reasoning and text open an item and anything else closes it; calls of an engine may interleave,
 * items may too. A call whose arguments are not whole stays open until the answer's end says whether it was
 * cut.
 */
import type { ResponseItemStatus, ResponseOutputItem } from 'cortex-core/wire/responses';
import type { AnswerEvent } from '../inner/answer-event.ts';
import { toCarried } from './carried-text.ts';
import { InputText } from './input-text.ts';
import { ItemWriter, type MakeItem, type SendEvent } from './item-writer.ts';
import type { ClientTool, ToolTable } from './tools.ts';

export interface OutputOptions {
  readonly tools: ToolTable;
  readonly summarises: boolean;
  readonly carriesReasoning: boolean;
  readonly newId: (prefix: string) => string;
}

export type OutputEvent = Exclude<AnswerEvent, { readonly type: 'start' | 'usage' | 'stop' | 'error' }>;

interface OpenCall {
  readonly place: number;
  readonly writer: ItemWriter;
  /** Takes a custom tool's text out of its arguments; null for other calls. */
  readonly input: InputText | null;
  /** It ended, and its arguments are not whole. */
  stopped: boolean;
}

export class OutputWriter {
  /** Pieces so far: what an answer without usage is said to have cost. */
  pieces = 0;
  readonly #options: OutputOptions;
  readonly #send: SendEvent;
  /** By output_index; null while it is open. */
  readonly #items: (ResponseOutputItem | null)[] = [];
  #prose: {
    readonly kind: 'reasoning' | 'text';
    readonly place: number;
    readonly writer: ItemWriter;
  } | null = null;
  readonly #calls = new Map<number, OpenCall>();

  constructor(options: OutputOptions, send: SendEvent) {
    this.#options = options;
    this.#send = send;
  }

  take(event: OutputEvent): void {
    switch (event.type) {
      case 'reasoning':
      case 'text':
        this.pieces++;
        this.#proseOf(event.type).append(event.text);
        break;
      case 'call_start':
        this.#startCall(event.index, event.id, event.name);
        break;
      case 'call_arguments':
        this.pieces++;
        this.#arguments(event.index, event.text);
        break;
      case 'call_stop': {
        const call = this.#calls.get(event.index);
        if (call === undefined) break;
        if (isWhole(call)) this.#closeCall(event.index, call, 'completed');
        else call.stopped = true;
        break;
      }
      default:
        event satisfies never;
    }
  }

  /** All that is open ends; `cut`: the answer was. */
  close(cut: boolean): readonly ResponseOutputItem[] {
    this.#closeProse(cut ? 'incomplete' : 'completed');
    for (const [index, call] of this.#calls) this.#closeCall(index, call, cut ? 'incomplete' : 'completed');
    return this.#items.filter((item) => item !== null);
  }

  /** What there is of an answer that broke off. */
  broken(): readonly ResponseOutputItem[] {
    const items = [...this.#items];
    if (this.#prose !== null) items[this.#prose.place] = this.#prose.writer.broken();
    for (const { place, writer } of this.#calls.values()) items[place] = writer.broken();
    return items.filter((item) => item !== null);
  }

  #open(make: MakeItem): { readonly place: number; readonly writer: ItemWriter } {
    const place = this.#items.push(null) - 1;
    return { place, writer: new ItemWriter(place, make, this.#send) };
  }

  #proseOf(kind: 'reasoning' | 'text'): ItemWriter {
    if (this.#prose?.kind === kind) return this.#prose.writer;
    this.#closeBefore();
    const { newId } = this.#options;
    const make = kind === 'text' ? messageMaker(newId('msg')) : this.#reasoningMaker(newId('rs'));
    this.#prose = { kind, ...this.#open(make) };
    return this.#prose.writer;
  }

  #closeProse(status: 'completed' | 'incomplete'): void {
    if (this.#prose === null) return;
    this.#items[this.#prose.place] = this.#prose.writer.close(status);
    this.#prose = null;
  }

  /** What follows shows that these were not cut. */
  #closeBefore(): void {
    this.#closeProse('completed');
    for (const [index, call] of this.#calls) if (call.stopped) this.#closeCall(index, call, 'completed');
  }

  #startCall(index: number, callId: string, modelName: string): void {
    this.#closeBefore();
    const tool = this.#options.tools.clientOf(modelName);
    const make = callMaker(tool, callId, this.#options.newId);
    const input = tool.kind === 'custom' ? new InputText() : null;
    this.#calls.set(index, { ...this.#open(make), input, stopped: false });
  }

  #arguments(index: number, text: string): void {
    const call = this.#calls.get(index);
    call?.writer.append(call.input === null ? text : call.input.push(text));
  }

  #closeCall(index: number, call: OpenCall, status: 'completed' | 'incomplete'): void {
    const { place, writer, input } = call;
    if (input !== null) writer.append(input.end());
    else if (writer.text.trim() === '' && status === 'completed') writer.append('{}');
    this.#items[place] = writer.close(status);
    this.#calls.delete(index);
  }

  #reasoningMaker(id: string): MakeItem {
    const { summarises, carriesReasoning } = this.#options;
    return (status, text) => ({
      ...{ id, type: 'reasoning', status },
      ...(summarises
        ? { summary: [{ type: 'summary_text', text }] }
        : { summary: [], content: [{ type: 'reasoning_text', text }] }),
      ...(carriesReasoning ? { encrypted_content: status === 'in_progress' ? null : toCarried(text) } : {}),
    });
  }
}

function messageMaker(id: string): MakeItem {
  return (status, text) => ({
    ...{ id, type: 'message', status, role: 'assistant' },
    content: [{ type: 'output_text', text, annotations: [], logprobs: [] }],
  });
}

function callMaker(tool: ClientTool, callId: string, newId: (prefix: string) => string): MakeItem {
  const { kind, name, namespace } = tool;
  const named = { call_id: callId, name, ...(namespace === null ? {} : { namespace }) };
  switch (kind) {
    case 'function': {
      const id = newId('fc');
      return (status, text) => ({ id, type: 'function_call', status, ...named, arguments: text });
    }
    case 'custom': {
      const id = newId('ctc');
      return (status, text) => ({ id, type: 'custom_tool_call', status, ...named, input: text });
    }
    case 'tool_search': {
      const head = {
        id: newId('tsc'),
        type: 'tool_search_call',
        call_id: callId,
        execution: 'client',
      } as const;
      return (status, text) => ({ ...head, status, arguments: searchArguments(status, text) });
    }
    default:
      return kind satisfies never;
  }
}

/** An object, as clients expect it; what is none is passed on as the text that it is. */
function searchArguments(status: ResponseItemStatus, text: string): unknown {
  if (status === 'in_progress') return {};
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function isWhole({ writer, input }: OpenCall): boolean {
  if (input !== null) return input.whole;
  try {
    JSON.parse(writer.text);
    return true;
  } catch {
    return false;
  }
}
