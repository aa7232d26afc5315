/** The functions that a request offers, by name, with the types of their parameters. */
import type { ChatTool } from 'cortex-core/wire/openai';
import { type JsonSchema, toAllowedTypes, type ValueType } from './schema-types.ts';

export interface OfferedTool {
  readonly name: string;
  /** JSON Schema of the arguments object. */
  readonly parameters: JsonSchema;
  /** The request insists that every keyword of the schema is enforced. */
  readonly strict?: boolean | undefined;
}

/** The functions among a request's tools; a function without parameters takes none. */
export function toOfferedTools(tools: readonly ChatTool[] | undefined): readonly OfferedTool[] {
  return (tools ?? []).flatMap(({ function: each }) =>
    each === undefined
      ? []
      : [
          {
            name: each.name,
            parameters: each.parameters ?? { type: 'object', properties: {} },
            strict: each.strict ?? undefined,
          },
        ],
  );
}

/** Namespaces that models put before a name though the request had none. */
const namespaces = ['functions.', 'tools.', 'default_api.'];

export class OfferedTools {
  readonly #byName: ReadonlyMap<string, OfferedTool>;
  /** Characters of the longest spelling of a name. */
  readonly nameLengthMax: number;

  constructor(tools: readonly OfferedTool[]) {
    this.#byName = new Map(tools.map((tool) => [tool.name, tool]));
    const longest = Math.max(0, ...tools.map((tool) => tool.name.length));
    this.nameLengthMax = longest + 16;
  }

  get isEmpty(): boolean {
    return this.#byName.size === 0;
  }

  get names(): readonly string[] {
    return [...this.#byName.keys()];
  }

  /** The tool a model means; undefined when none was offered under that name. */
  find(spelled: string): OfferedTool | undefined {
    const name = spelled.trim();
    const exact = this.#byName.get(name);
    if (exact !== undefined) return exact;
    const namespace = namespaces.find((each) => name.startsWith(each));
    return namespace === undefined ? undefined : this.#byName.get(name.slice(namespace.length));
  }
}

/** Names of the parameters in the order of the schema. */
export function parameterNames(tool: OfferedTool): readonly string[] {
  const { properties } = tool.parameters;
  return typeof properties === 'object' && properties !== null ? Object.keys(properties) : [];
}

/** Types a parameter may have; empty when the schema does not say. */
export function parameterTypes(tool: OfferedTool, parameter: string): ReadonlySet<ValueType> {
  return toAllowedTypes(tool.parameters, parameter);
}
