/** What the tests of formats share: a format by template, a whole turn by text, cut in any way. */
import type { ChatEvent } from 'cortex-core/wire/chat-events';
import type { ChatFormat } from './chat-format.ts';
import { createChatParser } from './chat-parser.ts';
import { detectFormat } from './detect-format.ts';
import type { OfferedTool } from './offered-tools.ts';

export const tools: readonly OfferedTool[] = [
  {
    name: 'lookup_tide',
    parameters: {
      type: 'object',
      properties: {
        harbour: { type: 'string' },
        days: { type: 'integer' },
        exact: { type: 'boolean' },
        note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
        span: { $ref: '#/$defs/span' },
        marks: { type: 'array', items: { type: 'number' } },
      },
      required: ['harbour'],
      $defs: { span: { type: 'object', properties: { from: { type: 'number' } } } },
    },
  },
  { name: 'ring_bell', parameters: { type: 'object', properties: {} } },
  { name: 'python', parameters: { type: 'object', properties: { code: { type: 'string' } } } },
];

export interface ParsedCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: string;
  readonly isEnded: boolean;
}

export interface ParsedTurn {
  readonly reasoning: string;
  readonly content: string;
  readonly calls: readonly ParsedCall[];
}

export interface ParseOptions {
  readonly tools?: readonly OfferedTool[];
  readonly startsInReasoning?: boolean;
  readonly parallel?: boolean;
  /** Cuts the text; default one piece. */
  readonly cut?: (text: string) => readonly string[];
}

export function formatOf(template: string, architecture = 'llama'): ChatFormat {
  return detectFormat({ chatTemplate: template, namedTemplates: {} }, architecture);
}

export function parseEvents(format: ChatFormat, text: string, options: ParseOptions = {}): ChatEvent[] {
  let ids = 0;
  const parser = createChatParser(format, {
    tools: options.tools ?? tools,
    startsInReasoning: options.startsInReasoning ?? false,
    parallel: options.parallel ?? true,
    randomText: () => `${ids++}`.padStart(2, '0').padEnd(24, 'x'),
  });
  const pieces = options.cut?.(text) ?? [text];
  return [...pieces.flatMap((piece) => parser.push(piece)), ...parser.finish()];
}

/** Neighbours of one kind joined: what must not depend on cuts. */
export function mergeEvents(events: readonly ChatEvent[]): ChatEvent[] {
  const merged: ChatEvent[] = [];
  for (const event of events) {
    const last = merged.at(-1);
    if (last !== undefined && 'text' in last && 'text' in event && last.kind === event.kind) {
      merged[merged.length - 1] = { ...last, text: last.text + event.text };
    } else merged.push(event);
  }
  return merged;
}

export function collect(events: readonly ChatEvent[]): ParsedTurn {
  let [reasoning, content] = ['', ''];
  const calls: { id: string; name: string; arguments: string; isEnded: boolean }[] = [];
  for (const event of events) {
    if (event.kind === 'reasoning') reasoning += event.text;
    else if (event.kind === 'content') content += event.text;
    else if (event.kind === 'call_start') {
      calls[event.index] = { id: event.id, name: event.name, arguments: '', isEnded: false };
    } else {
      const call = calls[event.index];
      if (call === undefined) throw new Error(`${event.kind} before call_start`);
      if (event.kind === 'call_arguments') call.arguments += event.text;
      else call.isEnded = true;
    }
  }
  return { reasoning, content, calls };
}

export function parse(format: ChatFormat, text: string, options: ParseOptions = {}): ParsedTurn {
  return collect(parseEvents(format, text, options));
}

export function byCharacter(text: string): readonly string[] {
  return text.split('');
}
