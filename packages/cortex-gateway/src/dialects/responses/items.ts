/**
 * Items of a Responses conversation -> turns. The same reader serves what a request brings and what the
 * store replays before it.
 *
 * Problem: clients send items of three generations (`{role, content}` without a type, messages with parts,
 * calls in vendor's forms), and histories that were made elsewhere.
 * Design: one item is at most one turn; the encoder merges neighbours. Calls of hosted tools in a history
 * say nothing a model here could use and are passed over; calls that a client ran itself stay calls.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { InnerPart, InnerTurn } from '../inner/inner-request.ts';
import type { JsonObject } from '../request-body.ts';
import { fromCarried } from './carried-text.ts';
import { faultAt, listAt, maybe, nameAt, objectAt, oneOfAt, quoted, textAt, wrongValue } from './fields.ts';
import { readContent } from './parts.ts';
import { modelNameOf, type ToolTable, toolSearchName } from './tools.ts';

const roles = ['assistant', 'system', 'developer', 'user'] as const;
const itemTypes = ['message', 'function_call', 'function_call_output', 'reasoning', 'custom_tool_call'];
const moreTypes = ['custom_tool_call_output', 'item_reference', 'tool_search_call', 'tool_search_output'];

/** Of hosted tools, and marks that say nothing to a model. */
const passedOver = new Set([
  ...['web_search_call', 'file_search_call', 'code_interpreter_call', 'image_generation_call'],
  ...['mcp_list_tools', 'mcp_call', 'mcp_approval_request', 'mcp_approval_response'],
  ...['computer_call', 'computer_call_output', 'program', 'program_output', 'compaction_trigger'],
]);

/** A client's own tools of other names: the field that says what was called. */
const localCalls: ReadonlyMap<string, string> = new Map([
  ['local_shell_call', 'action'],
  ['shell_call', 'action'],
  ['apply_patch_call', 'operation'],
]);

export class ItemReader {
  readonly turns: InnerTurn[] = [];
  /** Goes with what the assistant says next; where it says nothing more, it led to nothing. */
  #thoughts: readonly InnerPart[] = [];
  readonly #tools: ToolTable;
  readonly #known = new Set<string>();
  /** Called, and no result yet. */
  readonly #open = new Set<string>();

  /** `tools` gets those that items bring. */
  constructor(tools: ToolTable) {
    this.#tools = tools;
  }

  /** Throws an AppError that names the field at fault. `item_reference` must have been replaced. */
  read(item: JsonObject, path: string): void {
    const type = typeOf(item, path);
    switch (type) {
      case 'message':
        this.#message(item, path);
        break;
      case 'reasoning':
        this.#reasoning(item, path);
        break;
      case 'function_call':
        this.#call(item, path, textAt(item.arguments, `${path}.arguments`));
        break;
      case 'custom_tool_call':
        this.#call(item, path, JSON.stringify({ input: textAt(item.input, `${path}.input`) }));
        break;
      case 'function_call_output':
      case 'custom_tool_call_output':
        this.#result(item, path, readContent(item.output, `${path}.output`));
        break;
      case 'tool_search_call':
        this.#call({ ...item, name: toolSearchName }, path, jsonText(item.arguments ?? {}));
        break;
      case 'tool_search_output':
        this.#searched(item, path);
        break;
      case 'additional_tools':
        this.#tools.add(item.tools, `${path}.tools`);
        break;
      case 'compaction':
        this.#compaction(item, path);
        break;
      default:
        this.#other(type, item, path);
    }
  }

  #message(item: JsonObject, path: string): void {
    const role = oneOfAt(roles)(item.role, `${path}.role`);
    const parts = readContent(item.content, `${path}.content`);
    this.#turn(role === 'developer' ? 'system' : role, parts);
  }

  /** Ours in full where we can read it; else what the item shows; else nothing. */
  #reasoning(item: JsonObject, path: string): void {
    const carried = maybe(item.encrypted_content, `${path}.encrypted_content`, textAt);
    const ours = carried === null ? null : fromCarried(carried);
    const shown =
      ours ?? (textOf(item.content, `${path}.content`) || textOf(item.summary, `${path}.summary`));
    if (shown !== '') this.#thoughts = [...this.#thoughts, { type: 'reasoning', text: shown }];
  }

  #call(item: JsonObject, path: string, given: string): void {
    const id = nameAt(item.call_id, `${path}.call_id`);
    const namespace = maybe(item.namespace, `${path}.namespace`, nameAt);
    const name = modelNameOf(nameAt(item.name, `${path}.name`), namespace);
    if (this.#open.has(id)) {
      const message = `Duplicate call_id '${quoted(id)}': two calls that wait for their output share it.`;
      throw faultAt(`${path}.call_id`, message);
    }
    this.#open.add(id);
    this.#known.add(id);
    this.#turn('assistant', [{ type: 'call', id, name, arguments: given }]);
  }

  #result(item: JsonObject, path: string, parts: readonly InnerPart[]): void {
    const callId = nameAt(item.call_id, `${path}.call_id`);
    if (!this.#known.has(callId)) {
      const message = `No tool call found for function call output with call_id ${quoted(callId)}.`;
      throw faultAt(`${path}.call_id`, message);
    }
    this.#open.delete(callId);
    this.#turn('user', [{ type: 'result', callId, parts, isError: false }]);
  }

  /** What was found can be called from here on, and the model reads its names. */
  #searched(item: JsonObject, path: string): void {
    const found = this.#tools.add(item.tools, `${path}.tools`);
    // of a search that the vendor ran there is no call
    if (typeof item.call_id !== 'string' || !this.#known.has(item.call_id)) return;
    const text = found.length === 0 ? 'Nothing was found.' : `You can call now: ${found.join(', ')}`;
    this.#result(item, path, [{ type: 'text', text }]);
  }

  #compaction(item: JsonObject, path: string): void {
    const place = `${path}.encrypted_content`;
    const text = fromCarried(textAt(item.encrypted_content, place));
    if (text === null) {
      throw faultAt(place, 'This compaction was made elsewhere and cannot be read here; send the items.');
    }
    this.#turn('user', [{ type: 'text', text: `${compactionHead}\n${text}` }]);
  }

  #other(type: string, item: JsonObject, path: string): void {
    if (passedOver.has(type)) return;
    const field = localCalls.get(type);
    if (field !== undefined) {
      const name = type.slice(0, -'_call'.length);
      this.#call({ ...item, name }, path, jsonText(item[field] ?? {}));
      return;
    }
    if (type.endsWith('_output') && localCalls.has(type.slice(0, -'_output'.length))) {
      this.#result(item, path, [{ type: 'text', text: jsonText(item.output ?? '') }]);
      return;
    }
    throw wrongValue(type, `${path}.type`, [...itemTypes, ...moreTypes]);
  }

  #turn(role: InnerTurn['role'], parts: readonly InnerPart[]): void {
    this.turns.push({ role, parts: role === 'assistant' ? [...this.#thoughts, ...parts] : parts });
    this.#thoughts = [];
  }
}

const compactionHead = 'Summary of the conversation so far:';

/** A message may leave its type out, a reference too. */
export function typeOf(item: JsonObject, path: string): string {
  const { type, role, id } = item;
  if (type !== undefined && type !== null) return textAt(type, `${path}.type`);
  if (role !== undefined && role !== null) return 'message';
  if (typeof id === 'string' && item.content === undefined) return 'item_reference';
  throw new AppError('invalid_request', `Missing required parameter: '${path}.type'.`, {
    param: `${path}.type`,
  });
}

function textOf(value: unknown, path: string): string {
  const texts = (maybe(value, path, listAt) ?? []).map((each, at) => {
    const place = `${path}[${at}]`;
    return textAt(objectAt(each, place).text, `${place}.text`);
  });
  return texts.join('\n\n');
}

function jsonText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
