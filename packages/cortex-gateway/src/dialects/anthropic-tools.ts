/**
 * Tools of a Messages request -> functions. The rule, as docs/messages.md tells it: a custom tool, or any
 * other that brings an `input_schema`, is a function; the tools whose schema Anthropic's models know and the
 * client executes (bash, text_editor, memory, computer) become functions with that schema; what Anthropic's
 * servers would execute (web_search, web_fetch, code_execution, ...) is dropped: nobody here can do it, and a
 * model must not be told of it. A deferred tool is shown once the conversation has referred to it.
 */

import { clientToolOf } from './anthropic-client-tools.ts';
import { booleanAt, faultAt, listAt, maybe, objectAt, quoted, stringAt } from './anthropic-fields.ts';
import type { InnerTool, InnerToolChoice } from './inner/inner-request.ts';
import type { JsonObject } from './request-body.ts';

/** What a neuron takes. */
const toolsMax = 1024;
const namePattern = /^[a-zA-Z0-9_-]{1,128}$/;
/** Stands in a list for tools that are yet to come; clients send it, no model should see it. */
const placeholderName = 'DeferredToolPlaceholder';

/** The request's tools, and what its messages say of them: reading those adds to it. */
export interface MessagesTools {
  /** All that a model may be shown, deferred ones too. */
  readonly known: Map<string, InnerTool>;
  /** Names of those that wait to be referred to. */
  readonly deferred: ReadonlySet<string>;
  /** Names that the conversation has come to, in order. */
  readonly referred: Set<string>;
  /** Names that were withdrawn. */
  readonly removed: Set<string>;
  /** Some were dropped. */
  readonly isCut: boolean;
}

export function readTools(value: unknown): MessagesTools {
  const given = maybe(value, 'tools', listAt) ?? [];
  if (given.length > toolsMax) throw faultAt('tools', `List should have at most ${toolsMax} items`);
  const known = new Map<string, InnerTool>();
  const deferred = new Set<string>();
  let isCut = false;
  let findsByServer = false;
  for (const [at, each] of given.entries()) {
    const path = `tools.${at}`;
    const tool = objectAt(each, path);
    const type = maybe(tool.type, `${path}.type`, stringAt);
    if (type?.startsWith('tool_search_tool') === true) findsByServer = true;
    const read = readTool(tool, type, path);
    if (read === null) {
      isCut = true;
      continue;
    }
    if (known.has(read.name)) throw faultAt('tools', `Tool names must be unique: "${quoted(read.name)}"`);
    known.set(read.name, read);
    if (maybe(tool.defer_loading, `${path}.defer_loading`, booleanAt) === true) deferred.add(read.name);
  }
  // nobody would ever refer to them: the search is a tool that is dropped, or there is none
  const canFind = [...known.keys()].some((name) => !deferred.has(name) && /tool_?search/i.test(name));
  if (findsByServer || !canFind) deferred.clear();
  return { known, deferred, referred: new Set(), removed: new Set(), isCut };
}

/** In the order given; deferred ones behind the others as they came up, so that the list only grows. */
export function shownTools({ known, deferred, referred, removed }: MessagesTools): InnerTool[] {
  const shown = [...known.values()].filter(({ name }) => !deferred.has(name));
  for (const name of referred) {
    const tool = known.get(name);
    if (tool !== undefined && deferred.has(name)) shown.push(tool);
  }
  return shown.filter(({ name }) => !removed.has(name));
}

/** A `tool_addition` or `tool_removal` block: a tool that comes or goes in the middle of a conversation. */
export function changeTools(block: JsonObject, path: string, tools: MessagesTools): void {
  const change = objectAt(block.tool, `${path}.tool`);
  const kind = stringAt(change.type, `${path}.tool.type`);
  if (kind === 'tool_definition') {
    const where = `${path}.tool.definition`;
    const definition = objectAt(change.definition, where);
    const tool = readTool(definition, maybe(definition.type, `${where}.type`, stringAt), where);
    if (tool === null) return;
    if (tools.known.size >= toolsMax) throw faultAt(path, `More than ${toolsMax} tools`);
    tools.known.set(tool.name, tool);
    tools.removed.delete(tool.name);
  } else if (kind === 'tool_reference') {
    const name = stringAt(change.name, `${path}.tool.name`);
    if (block.type === 'tool_removal') tools.removed.add(name);
    else {
      tools.removed.delete(name);
      tools.referred.add(name);
    }
  }
}

export interface MessagesToolChoice {
  readonly choice: InnerToolChoice | null;
  readonly parallel: boolean | null;
}

/** A tool that is forced has been referred to. */
export function readToolChoice(
  value: unknown,
  { known, referred, isCut }: MessagesTools,
): MessagesToolChoice {
  const given = maybe(value, 'tool_choice', objectAt);
  if (given === null) return { choice: null, parallel: null };
  const type = stringAt(given.type, 'tool_choice.type');
  const serial = maybe(given.disable_parallel_tool_use, 'tool_choice.disable_parallel_tool_use', booleanAt);
  const parallel = serial === null ? null : !serial;
  switch (type) {
    case 'auto':
    case 'none':
      return { choice: type, parallel };
    case 'any':
      if (known.size > 0) return { choice: 'required', parallel };
      if (isCut) return { choice: null, parallel };
      throw faultAt('tool_choice', 'tool_choice may only be "any" while providing tools');
    case 'tool': {
      const name = stringAt(given.name, 'tool_choice.name');
      if (known.has(name)) {
        referred.add(name);
        return { choice: { name }, parallel };
      }
      if (isCut) return { choice: null, parallel };
      throw faultAt('tool_choice.name', `Tool '${quoted(name)}' not found in provided tools`);
    }
    default:
      throw faultAt('tool_choice.type', `Input should be 'auto', 'any', 'tool' or 'none'`);
  }
}

/** Null = dropped. */
function readTool(tool: JsonObject, type: string | null, path: string): InnerTool | null {
  if (tool.name === placeholderName) return null;
  const isCustom = type === null || type === 'custom';
  const schema = maybe(tool.input_schema, `${path}.input_schema`, objectAt);
  if (!isCustom && schema === null) {
    const name = maybe(tool.name, `${path}.name`, stringAt);
    return clientToolOf(type, name);
  }
  const name = stringAt(tool.name, `${path}.name`);
  if (!namePattern.test(name)) {
    throw faultAt(`${path}.name`, `String should match pattern '${namePattern.source}'`);
  }
  if (schema === null) throw faultAt(`${path}.input_schema`, 'Field required');
  const { $schema: _, ...parameters } = schema;
  return {
    name,
    description: maybe(tool.description, `${path}.description`, stringAt),
    parameters,
    strict: maybe(tool.strict, `${path}.strict`, booleanAt),
  };
}
