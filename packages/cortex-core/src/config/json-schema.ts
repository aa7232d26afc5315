/**
 * The JSON Schemas of the files, generated from the zod types, and what the loader asks of them: which keys
 * there are and what a value may be. `scripts/generate-schemas.mjs` writes them to config/schema/.
 */
import { z } from 'zod';
import { cortexConfigSchema } from './cortex-config.ts';
import { fleetConfigSchema } from './fleet-config.ts';
import { modelsConfigSchema } from './models-config.ts';
import { neuronConfigSchema } from './neuron-config.ts';

export const configSchemas = {
  cortex: cortexConfigSchema,
  models: modelsConfigSchema,
  neuron: neuronConfigSchema,
  fleet: fleetConfigSchema,
} as const;

export type ConfigKind = keyof typeof configSchemas;
export type ConfigOf<K extends ConfigKind> = z.output<(typeof configSchemas)[K]>;
export type ConfigInputOf<K extends ConfigKind> = z.input<(typeof configSchemas)[K]>;

/** The part of JSON Schema that these schemas use. */
export interface JsonSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

const titles: Readonly<Record<ConfigKind, string>> = {
  cortex: 'cortex.toml: the gateway of Cortex',
  models: 'models.toml: the model catalogue of Cortex',
  neuron: 'neuron.toml: the daemon of one machine of Cortex',
  fleet: 'fleet.toml: the machines and models of a simulation of Cortex',
};

/** The schema of a file as written: what has a default is not required. It has no null, as TOML has none. */
export function toJsonSchema(kind: ConfigKind): JsonSchema {
  const schema = z.toJSONSchema(configSchemas[kind], {
    io: 'input',
    target: 'draft-07',
    override: ({ jsonSchema }) => tidy(jsonSchema as Record<string, unknown>),
  });
  const { $schema, ...rest } = schema;
  return { $schema, title: titles[kind], ...rest } as JsonSchema;
}

/** The text of config/schema/<kind>.schema.json, laid out as the repository's formatter wants it. */
export function toSchemaFile(kind: ConfigKind): string {
  const text = JSON.stringify(toJsonSchema(kind), null, 2);
  // Arrays of plain values stand on one line where that has at most 110 characters.
  const short = text.replace(/^( *"[^"]*": )\[\n([^[\]{}]*)\n *\](,?)$/gm, (whole, key, items, comma) => {
    const line = `${key}[${items.trim().replace(/,\n */g, ', ')}]${comma}`;
    return line.length > 110 ? whole : line;
  });
  return `${short}\n`;
}

/** The schemas that hold for the value at `path`; empty when there is no such key. */
export function schemasAt(root: JsonSchema, path: readonly (string | number)[]): readonly JsonSchema[] {
  let nodes = variants(root);
  for (const segment of path) nodes = nodes.flatMap((node) => variants(childOf(node, segment)));
  return nodes;
}

/** The names of the keys that a table may have. */
export function keysOf(nodes: readonly JsonSchema[]): readonly string[] {
  return [...new Set(nodes.flatMap((node) => Object.keys(node.properties ?? {})))];
}

/** Every key of a file. An array is passed through without a segment; a free name is `*`. */
export function listKeyPaths(root: JsonSchema): readonly (readonly string[])[] {
  const found = new Map<string, readonly string[]>();
  const visit = (node: JsonSchema, path: readonly string[]): void => {
    for (const variant of variants(node)) {
      for (const [name, child] of Object.entries(variant.properties ?? {})) {
        found.set([...path, name].join('.'), [...path, name]);
        visit(child, [...path, name]);
      }
      if (typeof variant.additionalProperties === 'object')
        visit(variant.additionalProperties, [...path, '*']);
      if (variant.items !== undefined) visit(variant.items, path);
    }
  };
  visit(root, []);
  return [...found.values()];
}

function childOf(node: JsonSchema, segment: string | number): JsonSchema | undefined {
  if (typeof segment === 'number') return node.items;
  if (node.properties !== undefined && Object.hasOwn(node.properties, segment))
    return node.properties[segment];
  return typeof node.additionalProperties === 'object' ? node.additionalProperties : undefined;
}

function variants(node: JsonSchema | undefined): readonly JsonSchema[] {
  if (node === undefined) return [];
  const choices = node.anyOf ?? node.oneOf;
  return choices === undefined ? [node] : choices.flatMap(variants);
}

function tidy(node: Record<string, unknown>): void {
  if (node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum;
  if (node.minimum === Number.MIN_SAFE_INTEGER) delete node.minimum;
  if (node.default === null || isEmptyTable(node.default)) delete node.default;
  if (!Array.isArray(node.anyOf)) return;
  const choices = (node.anyOf as Record<string, unknown>[]).filter((choice) => choice.type !== 'null');
  if (choices.length !== 1) {
    node.anyOf = choices;
    return;
  }
  delete node.anyOf;
  for (const [key, value] of Object.entries(choices[0] ?? {})) node[key] ??= value;
}

function isEmptyTable(value: unknown): boolean {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && Object.keys(value).length === 0
  );
}
