/**
 * Tools of a Responses request -> functions for the model, and back to what the client calls them.
 *
 * Problem: a model calls functions by one flat name. Clients have functions in namespaces, tools that take
 * free text, and a tool that finds tools; they want each called in its own form.
 * Design: a table from the model's name to the client's tool. A namespace's function is `namespace__name` for
 * the model, a custom tool is a function with the one text `input`. What only a vendor's servers can run
 * (web_search, file_search, mcp, ...) is left out: clients send those always, and never depend on them.
 */
import type { InnerTool, InnerToolChoice } from '../inner/inner-request.ts';
import type { JsonObject } from '../request-body.ts';
import { booleanAt, faultAt, listAt, maybe, nameAt, objectAt, oneOfAt, quoted, textAt } from './fields.ts';

export interface ClientTool {
  readonly kind: 'function' | 'custom' | 'tool_search';
  readonly name: string;
  readonly namespace: string | null;
}

/** As many as a neuron takes. */
const toolsMax = 1024;
export const toolSearchName = 'tool_search';

export class ToolTable {
  readonly #tools = new Map<string, InnerTool>();
  readonly #clients = new Map<string, ClientTool>();
  #listed: string[] = [];

  get tools(): readonly InnerTool[] {
    return [...this.#tools.values()];
  }

  /** How the client calls what the model called `name`. */
  clientOf(name: string): ClientTool {
    return this.#clients.get(name) ?? { kind: 'function', name, namespace: null };
  }

  has(name: string): boolean {
    return this.#tools.has(name);
  }

  /** Of a list of tools. One that is there already stays as it was. Returns the model's names of all. */
  add(value: unknown, path: string): readonly string[] {
    this.#listed = [];
    const list = listAt(value, path);
    checkCount(list.length, path);
    for (const [at, each] of list.entries()) this.#tool(each, `${path}[${at}]`, null);
    checkCount(this.#tools.size, path);
    return this.#listed;
  }

  #tool(value: unknown, path: string, namespace: string | null): void {
    const tool = objectAt(value, path);
    switch (textAt(tool.type, `${path}.type`)) {
      case 'function':
        this.#function(tool, path, namespace);
        break;
      case 'custom':
        this.#custom(tool, path, namespace);
        break;
      case 'namespace': {
        const name = nameAt(tool.name, `${path}.name`);
        const list = listAt(tool.tools, `${path}.tools`);
        checkCount(list.length, `${path}.tools`);
        if (namespace !== null) throw faultAt(path, `Invalid '${path}': a namespace inside a namespace.`);
        for (const [at, each] of list.entries()) this.#tool(each, `${path}.tools[${at}]`, name);
        return;
      }
      case 'tool_search':
        this.#toolSearch(tool, path);
        break;
      default:
      // hosted by the vendor, or a tool of a later day that the model here could not run either
    }
  }

  #function(tool: JsonObject, path: string, namespace: string | null): void {
    const name = nameAt(tool.name, `${path}.name`);
    const given = maybe(tool.parameters, `${path}.parameters`, objectAt);
    this.#put(
      { kind: 'function', name, namespace },
      {
        description: maybe(tool.description, `${path}.description`, textAt),
        parameters: given ?? { type: 'object', properties: {} },
        strict: maybe(tool.strict, `${path}.strict`, booleanAt),
      },
    );
  }

  #custom(tool: JsonObject, path: string, namespace: string | null): void {
    const name = nameAt(tool.name, `${path}.name`);
    const description = maybe(tool.description, `${path}.description`, textAt);
    const format = maybe(tool.format, `${path}.format`, objectAt);
    const grammar = format === null ? null : grammarOf(format, `${path}.format`);
    const says = [description, grammar].filter((text) => text !== null).join('\n\n');
    this.#put(
      { kind: 'custom', name, namespace },
      { description: says === '' ? null : says, parameters: inputParameters, strict: null },
    );
  }

  /** Only a client's own search can be called; what a vendor would search is among the tools already. */
  #toolSearch(tool: JsonObject, path: string): void {
    if (tool.execution !== 'client') return;
    this.#put(
      { kind: 'tool_search', name: toolSearchName, namespace: null },
      {
        description: maybe(tool.description, `${path}.description`, textAt) ?? 'Finds tools to call.',
        parameters: maybe(tool.parameters, `${path}.parameters`, objectAt) ?? searchParameters,
        strict: null,
      },
    );
  }

  #put(client: ClientTool, tool: Omit<InnerTool, 'name'>): void {
    const name = modelNameOf(client.name, client.namespace);
    this.#listed.push(name);
    if (this.#tools.has(name)) return;
    this.#tools.set(name, { name, ...tool });
    this.#clients.set(name, client);
  }
}

export function modelNameOf(name: string, namespace: string | null): string {
  return namespace === null ? name : `${namespace}__${name}`;
}

const textParameters = (field: string, description: string): JsonObject => ({
  type: 'object',
  properties: { [field]: { type: 'string', description } },
  required: [field],
  additionalProperties: false,
});
const inputParameters = textParameters('input', 'The whole input of the tool.');
const searchParameters = textParameters('query', 'What the tool should do.');

/** The model is told; the input is not held to it. */
function grammarOf(format: JsonObject, path: string): string | null {
  if (oneOfAt(['text', 'grammar'])(format.type, `${path}.type`) === 'text') return null;
  const syntax = oneOfAt(['lark', 'regex'])(format.syntax, `${path}.syntax`);
  const definition = textAt(format.definition, `${path}.definition`);
  const what = syntax === 'lark' ? 'Lark grammar' : 'regular expression';
  return `The input must match this ${what}:\n${definition}`;
}

function checkCount(count: number, path: string): void {
  if (count <= toolsMax) return;
  const message = `Invalid '${path}': array too long. Expected at most ${toolsMax} tools, got ${count}.`;
  throw faultAt(path, message);
}

export interface ChosenTools {
  readonly tools: readonly InnerTool[];
  readonly choice: InnerToolChoice | null;
}

const modes = ['none', 'auto', 'required'] as const;

/** `tool_choice` over the table. A choice of a vendor's tool, which was left out, is `auto`. */
export function chooseTools(table: ToolTable, value: unknown, path: string): ChosenTools {
  const { tools } = table;
  if (value === undefined || value === null) return { tools, choice: null };
  // where all tools were left out, chat-body leaves the choice out too
  if (typeof value === 'string') return { tools, choice: oneOfAt(modes)(value, path) };
  const object = objectAt(value, path);
  switch (textAt(object.type, `${path}.type`)) {
    case 'function':
    case 'custom':
      return { tools, choice: { name: namedIn(table, object, path) } };
    case toolSearchName:
      return { tools, choice: table.has(toolSearchName) ? { name: toolSearchName } : 'auto' };
    case 'allowed_tools':
      return allowedIn(table, object, path);
    default:
      return { tools, choice: 'auto' };
  }
}

function allowedIn(table: ToolTable, object: JsonObject, path: string): ChosenTools {
  const mode = maybe(object.mode, `${path}.mode`, oneOfAt(['auto', 'required'] as const)) ?? 'auto';
  const allowed = new Set<string>();
  const list = listAt(object.tools, `${path}.tools`);
  checkCount(list.length, `${path}.tools`);
  for (const [at, each] of list.entries()) {
    const place = `${path}.tools[${at}]`;
    const tool = objectAt(each, place);
    const type = textAt(tool.type, `${place}.type`);
    if (type === 'function' || type === 'custom') allowed.add(namedIn(table, tool, place));
    else if (type === toolSearchName) allowed.add(toolSearchName);
    else if (type === 'namespace') {
      const namespace = nameAt(tool.name, `${place}.name`);
      for (const { name } of table.tools) {
        if (table.clientOf(name).namespace === namespace) allowed.add(name);
      }
    }
  }
  return { tools: table.tools.filter(({ name }) => allowed.has(name)), choice: mode };
}

function namedIn(table: ToolTable, object: JsonObject, path: string): string {
  const name = nameAt(object.name, `${path}.name`);
  const namespace = maybe(object.namespace, `${path}.namespace`, nameAt);
  const called = modelNameOf(name, namespace);
  if (table.has(called)) return called;
  throw faultAt(path, `Tool choice '${quoted(called)}' not found in 'tools' parameter.`);
}
