/** What a request continues and what it brings: the stored chain, then `input`, as turns. */
import { AppError } from 'cortex-core/wire/errors';
import type { InnerTurn } from '../inner/inner-request.ts';
import type { JsonObject } from '../request-body.ts';
import { faultAt, maybe, nameAt, objectAt, quoted, wrongType } from './fields.ts';
import { ItemReader, typeOf } from './items.ts';
import type { CallerStore, StoredResponse } from './store-face.ts';
import type { ToolTable } from './tools.ts';

export interface Conversation {
  readonly previousId: string | null;
  readonly turns: readonly InnerTurn[];
  /** The request's own items as they are stored: with ids, references replaced. */
  readonly input: readonly JsonObject[];
}

export interface ConversationDeps {
  readonly store: CallerStore;
  /** `prefix_` and something that no other id has. */
  readonly newId: (prefix: string) => string;
}

/** `tools` gets those that items bring. */
export function readConversation(body: JsonObject, tools: ToolTable, deps: ConversationDeps): Conversation {
  const previousId = maybe(body.previous_response_id, 'previous_response_id', nameAt);
  const reader = new ItemReader(tools);
  for (const { input, response } of previousId === null ? [] : chainOf(previousId, deps.store)) {
    for (const item of input) reader.read(item, 'previous_response_id');
    for (const item of response.output) reader.read({ ...item }, 'previous_response_id');
  }
  const referenced = new Set<string>();
  const input = readInput(body.input, previousId !== null).map((value, at) => {
    const path = typeof body.input === 'string' ? 'input' : `input[${at}]`;
    const item = resolved(objectAt(value, path), path, deps.store, referenced);
    reader.read(item, path);
    return toStored(item, path, deps.newId);
  });
  return { previousId, turns: reader.turns, input };
}

function readInput(value: unknown, continues: boolean): readonly unknown[] {
  if (typeof value === 'string') return [{ type: 'message', role: 'user', content: value }];
  if ((value === undefined || value === null) && continues) return [];
  if (!Array.isArray(value)) throw wrongType(value, 'input', 'one of a string or an array of items');
  if (value.length === 0 && !continues) {
    throw faultAt('input', "Invalid 'input': empty array. Expected at least one item.");
  }
  return value;
}

/** Oldest first. Throws `previous_response_not_found`, also where the chain has lost a link. */
function chainOf(id: string, store: CallerStore): StoredResponse[] {
  const chain: StoredResponse[] = [];
  for (let at: string | null = id; at !== null; ) {
    const found = store.find(at);
    if (found === null) throw previousMissing(id, at, store);
    chain.push(found);
    at = found.response.previous_response_id;
  }
  return chain.reverse();
}

function previousMissing(id: string, missing: string, store: CallerStore): AppError {
  const link = missing === id ? '' : ` It continues '${quoted(missing)}', which is gone.`;
  const message = `Previous response with id '${quoted(id)}' not found.${link} ${store.whyMissing(missing)}`;
  return new AppError('previous_response_not_found', message, { param: 'previous_response_id' });
}

/** `referenced`: named so far; an item named twice could make much of little. */
function resolved(item: JsonObject, path: string, store: CallerStore, referenced: Set<string>): JsonObject {
  if (typeOf(item, path) !== 'item_reference') return item;
  const id = nameAt(item.id, `${path}.id`);
  if (referenced.has(id)) {
    const message = `Duplicate item found with id ${quoted(id)}. Remove duplicate items and try again.`;
    throw faultAt(`${path}.id`, message);
  }
  referenced.add(id);
  const found = store.findItem(id);
  if (found !== null) return found;
  const message = `Item with id '${quoted(id)}' not found. Items of answers with store: false are not kept.`;
  throw new AppError('not_found', `${message} ${store.whyMissing(id)}`, { param: `${path}.id` });
}

const idPrefixes: ReadonlyMap<string, string> = new Map([
  ['message', 'msg'],
  ['reasoning', 'rs'],
  ['function_call', 'fc'],
  ['function_call_output', 'fco'],
  ['custom_tool_call', 'ctc'],
  ['custom_tool_call_output', 'ctco'],
]);

function toStored(item: JsonObject, path: string, newId: (prefix: string) => string): JsonObject {
  const type = typeOf(item, path);
  const given = typeof item.id === 'string' && item.id !== '' ? item.id : null;
  const named = { ...item, type, id: given ?? newId(idPrefixes.get(type) ?? 'item') };
  if (type !== 'message') return named;
  const { content, role } = item;
  const parts = typeof content === 'string' ? [textPart(content, role === 'assistant')] : content;
  return { ...named, status: item.status ?? 'completed', content: parts };
}

function textPart(text: string, isOutput: boolean): JsonObject {
  if (!isOutput) return { type: 'input_text', text };
  return { type: 'output_text', text, annotations: [], logprobs: [] };
}
