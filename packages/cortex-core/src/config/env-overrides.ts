/**
 * Environment variables over the file: `CORTEX_GATEWAY__LISTEN` is `gateway.listen`, `NEURON_PORT` is `port`.
 * `__` nests, case does not matter. A value is read as TOML where that gives what the key wants, else as
 * text: `[{ name = "a", endpoint = "http://a:13131" }]` sets an array of tables, a key of digits stays text.
 */
import { parse } from 'smol-toml';
import type { ConfigFault } from './config-error.ts';
import { findFormerKey } from './issue-faults.ts';
import { type ConfigKind, type JsonSchema, listKeyPaths, schemasAt } from './json-schema.ts';
import { pathId } from './key-path.ts';
import { findNearest } from './nearest-key.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** models.toml is data and has no variables. */
const envPrefixes: Readonly<Record<ConfigKind, string | null>> = {
  cortex: 'CORTEX_',
  models: null,
  neuron: 'NEURON_',
  fleet: null,
};

/** Names with a prefix of ours that are not configuration keys: other parts of Cortex read them. */
export const reservedEnvNames: readonly string[] = [
  'CORTEX_API_KEY', // the cli: key for the gateway
  'CORTEX_CONFIG', // the cli: path of cortex.toml
  'CORTEX_ENDPOINT', // the cli: address of the gateway
  'CORTEX_HOME', // where `cortex up` keeps its files
  'NEURON_CONFIG', // the cli: path of neuron.toml
  'NEURON_FAULT', // tests: a fault to inject
  'NEURON_GPU', // libllama variant to load
  'NEURON_LIBLLAMA_DIR', // an own build of libllama
];

/**
 * Kubernetes gives every pod variables for each Service of its namespace; one called `cortex` or `neuron`
 * gives these (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
 */
const kubernetesName = /^(?:CORTEX|NEURON)_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_\w+)$/;
const kubernetesPort = /^(?:tcp|udp|sctp):\/\//;

interface EnvironmentResult {
  readonly values: Readonly<Record<string, unknown>>;
  /** `pathId` of what a variable set -> its name. */
  readonly origins: ReadonlyMap<string, string>;
  readonly faults: readonly ConfigFault[];
}

/** Lays the variables over `values`, which is not changed. */
export function applyEnvironment(
  kind: ConfigKind,
  schema: JsonSchema,
  values: Readonly<Record<string, unknown>>,
  env: Environment,
): EnvironmentResult {
  const prefix = envPrefixes[kind];
  const origins = new Map<string, string>();
  const faults: ConfigFault[] = [];
  if (prefix === null) return { values, origins, faults };
  let result = values;
  // Outer keys come first, so that an inner one adds to the table that an outer one set.
  for (const name of Object.keys(env).sort()) {
    const text = env[name];
    const upper = name.toUpperCase();
    if (text === undefined || !upper.startsWith(prefix) || isForeign(upper, text)) continue;
    const path = upper.slice(prefix.length).toLowerCase().split('__');
    const nodes = schemasAt(schema, path);
    if (nodes.length === 0) {
      const former = findFormerKey(kind, path);
      const place = { source: `environment ${name}`, line: null, column: null };
      faults.push(
        former ? { ...place, ...former, suggestion: null } : unknownName(name, upper, prefix, schema),
      );
      continue;
    }
    result = withValue(result, path, toValue(text, nodes));
    origins.set(pathId(path), name);
  }
  return { values: result, origins, faults };
}

function isForeign(upper: string, text: string): boolean {
  if (reservedEnvNames.includes(upper) || kubernetesName.test(upper)) return true;
  return upper.endsWith('_PORT') && kubernetesPort.test(text);
}

function unknownName(name: string, upper: string, prefix: string, schema: JsonSchema): ConfigFault {
  // What a variable can set and is not a table: keys inside an array have no name of their own.
  const paths = listKeyPaths(schema).filter((path) => {
    const nodes = path.includes('*') ? [] : schemasAt(schema, path);
    return nodes.length > 0 && nodes.every((node) => node.properties === undefined);
  });
  const names = paths.map((path) => prefix + path.join('__').toUpperCase());
  const rest = upper.slice(prefix.length);
  const sameLeaf = names.find((candidate) => candidate.endsWith(`__${rest}`));
  const array = names.find(
    (candidate) => /^__\d+(?:__|$)/.test(upper.slice(candidate.length)) && upper.startsWith(candidate),
  );
  const nearest = findNearest(
    rest,
    names.map((candidate) => candidate.slice(prefix.length)),
  );
  return {
    source: `environment ${name}`,
    line: null,
    column: null,
    key: '',
    message: `names no configuration key (${array === undefined ? nesting : wholeArray})`,
    suggestion: array ?? sameLeaf ?? (nearest === null ? null : prefix + nearest),
  };
}

const nesting = '"__" separates table and key';
const wholeArray = 'an array is set as a whole, as TOML';

function toValue(text: string, nodes: readonly JsonSchema[]): unknown {
  const wanted = nodes.flatMap((node) => (node.type === undefined ? [] : [node.type]));
  const value = parseToml(text.trim());
  const isText = value === undefined || !wanted.some((type) => isOfType(value, type));
  return isText && wanted.includes('string') ? text : (value ?? text);
}

function parseToml(text: string): unknown {
  try {
    const table = parse(`value = ${text}`);
    return Object.keys(table).length === 1 ? table.value : undefined;
  } catch {
    return undefined;
  }
}

function isOfType(value: unknown, type: string): boolean {
  if (type === 'array') return Array.isArray(value);
  if (type === 'object') return typeof value === 'object' && !Array.isArray(value);
  return typeof value === (type === 'integer' ? 'number' : type);
}

function withValue(
  table: Readonly<Record<string, unknown>>,
  path: readonly string[],
  value: unknown,
): Readonly<Record<string, unknown>> {
  const [name, ...rest] = path;
  if (name === undefined) return table;
  if (rest.length === 0) return { ...table, [name]: value };
  const inner = Object.hasOwn(table, name) ? table[name] : undefined;
  const isTable = typeof inner === 'object' && inner !== null && !Array.isArray(inner);
  return { ...table, [name]: withValue(isTable ? (inner as Record<string, unknown>) : {}, rest, value) };
}
