/**
 * Loads a configuration file: defaults, then the file, then the environment. Everything that is wrong is
 * reported in one `ConfigError`, each fault with its line and the nearest known key, so that a person repairs
 * a file in one go. Reads synchronously, once, before anything else starts.
 */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { ConfigError, type ConfigFault } from './config-error.ts';
import { applyEnvironment, type Environment } from './env-overrides.ts';
import { toFaults } from './issue-faults.ts';
import {
  type ConfigInputOf,
  type ConfigKind,
  type ConfigOf,
  configSchemas,
  toJsonSchema,
} from './json-schema.ts';
import { findTomlLines, type TomlLines } from './toml-lines.ts';

export { ConfigError, type ConfigFault } from './config-error.ts';
export { type Environment, reservedEnvNames } from './env-overrides.ts';
export type { ConfigInputOf, ConfigKind, ConfigOf } from './json-schema.ts';

export interface LoadOptions<K extends ConfigKind> {
  /** The file. Without one, the configuration is the defaults and the environment. */
  readonly path?: string | undefined;
  /** What a file that does not exist means; an error unless told otherwise. */
  readonly missing?: 'error' | 'empty';
  readonly env?: Environment;
  /** What the caller prefers over the schema's defaults; the file and the environment win over it. */
  readonly defaults?: ConfigInputOf<K>;
}

/** Throws `ConfigError`. */
export function loadConfig<K extends ConfigKind>(kind: K, options: LoadOptions<K>): ConfigOf<K> {
  const { path } = options;
  const text = path === undefined ? null : readText(kind, path, options.missing ?? 'error');
  const source = path ?? `${kind} configuration`;
  const file = text === null ? {} : parseToml(text, source);
  const lines: TomlLines = text === null ? new Map() : findTomlLines(text);
  const schema = toJsonSchema(kind);
  const defaults = (options.defaults ?? {}) as Readonly<Record<string, unknown>>;
  const { values, origins, faults } = applyEnvironment(
    kind,
    schema,
    merge(defaults, file),
    options.env ?? {},
  );
  const result = configSchemas[kind].safeParse(values);
  if (result.success && faults.length === 0) return result.data as ConfigOf<K>;
  const context = { kind, schema, source, values, lines, origins };
  const issues = result.success ? [] : toFaults(result.error.issues, context);
  throw new ConfigError([...faults, ...issues].sort(byPlace));
}

/**
 * A path as it stands in a configuration file: `~/` is the home directory, and what is relative is relative
 * to the file's directory, or to the working directory where there is no file.
 */
export function resolveConfigPath(value: string, configPath: string | undefined): string {
  if (value === '~' || value.startsWith('~/')) return resolve(homedir(), value.slice(2));
  return resolve(configPath === undefined ? '.' : dirname(configPath), value);
}

function readText(kind: ConfigKind, path: string, missing: 'error' | 'empty'): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(path));
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' && missing === 'empty') return null;
    throw new ConfigError([fileFault(path, describeReadError(kind, code, cause))]);
  }
}

function describeReadError(kind: ConfigKind, code: string | undefined, cause: unknown): string {
  switch (code) {
    case 'ENOENT':
      return `no such file; name an existing ${kind}.toml, config/${kind}.example.toml is one to start from`;
    case 'EISDIR':
      return `is a directory; name the ${kind}.toml in it`;
    case 'EACCES':
      return 'may not be read by this user';
    case 'ERR_ENCODING_INVALID_ENCODED_DATA':
      return 'is not UTF-8 text';
    default:
      return `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
}

function parseToml(text: string, source: string): Readonly<Record<string, unknown>> {
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    // Below its first line the message quotes the file, which may hold keys.
    const message = (cause.message.split('\n')[0] ?? '').replace('Invalid TOML document: ', '');
    const { line, column } = cause;
    throw new ConfigError([{ ...fileFault(source, `is not valid TOML: ${message}`), line, column }]);
  }
}

function fileFault(source: string, message: string): ConfigFault {
  return { source, line: null, column: null, key: '', message, suggestion: null };
}

/** Tables are merged, everything else of `over` replaces what is under it. */
function merge(under: Readonly<Record<string, unknown>>, over: Readonly<Record<string, unknown>>) {
  const result: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const below = Object.hasOwn(under, key) ? under[key] : undefined;
    result[key] = isTable(below) && isTable(value) ? merge(below, value) : value;
  }
  return result;
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** By line within the file; what has no line comes first. */
function byPlace(left: ConfigFault, right: ConfigFault): number {
  return (left.line ?? 0) - (right.line ?? 0);
}
