/**
 * What zod says about a configuration, in the words of the person who wrote the file. A value is never
 * quoted: it may be a key.
 */
import type { z } from 'zod';
import type { ConfigFault } from './config-error.ts';
import { type ConfigKind, type JsonSchema, keysOf, listKeyPaths, schemasAt } from './json-schema.ts';
import { formatPath, type KeyPath, pathId } from './key-path.ts';
import { findNearest } from './nearest-key.ts';
import type { TomlLines } from './toml-lines.ts';

type Issue = z.core.$ZodIssue;
type Finding = Pick<ConfigFault, 'message' | 'suggestion'> & { readonly path: KeyPath };

export interface FaultContext {
  readonly kind: ConfigKind;
  readonly schema: JsonSchema;
  /** The file's path, or a name for the whole where there is no file. */
  readonly source: string;
  readonly values: unknown;
  readonly lines: TomlLines;
  /** `pathId` of what an environment variable set -> its name. */
  readonly origins: ReadonlyMap<string, string>;
}

const notYet = 'not supported by this version; remove it';

/** Keys of the original program that are not keys here -> what to do about them. */
const formerKeys: Readonly<Record<ConfigKind, ReadonlyMap<string, string>>> = {
  cortex: new Map([
    ['nodes', 'renamed to [[neurons]]'],
    ['upstream', notYet],
  ]),
  models: new Map(),
  neuron: new Map([
    ['harness', 'not supported by this version; use [engine] and [models]'],
    ['harnesses', 'not supported by this version, llamacpp is built in; remove it'],
    ['prefix_cache', 'is [engine] prefix_cache_mb now'],
    ['context_limit', 'is [limits] prefill_secs_max now; memory and training context count by themselves'],
    ['image', notYet],
    ['admission.anon_max_in_flight', notYet],
    ['admission.anon_max_pending', notYet],
    ['admission.kv_max_wait_secs', notYet],
  ]),
  fleet: new Map(),
};

/** The former key that `path` is, or is in. */
export function findFormerKey(kind: ConfigKind, path: KeyPath): Pick<ConfigFault, 'key' | 'message'> | null {
  for (const [index] of path.entries()) {
    const key = formatPath(path.slice(0, index + 1));
    const message = formerKeys[kind].get(key);
    if (message !== undefined) return { key, message };
  }
  return null;
}

export function toFaults(issues: readonly Issue[], context: FaultContext): readonly ConfigFault[] {
  return issues
    .flatMap((issue) => findingsOf(issue, context))
    .map(({ path, message, suggestion }) => {
      const place = locate(path, context);
      return { ...place, column: null, key: formatPath(path), message, suggestion };
    });
}

/**
 * The variable that set the key or a table around it, for then the file is out of play; else the key's own
 * line, else that of the innermost table around it.
 */
function locate(path: KeyPath, context: FaultContext): Pick<ConfigFault, 'source' | 'line'> {
  const ids = path.map((_, index) => pathId(path.slice(0, path.length - index)));
  const variable = ids.map((id) => context.origins.get(id)).find((name) => name !== undefined);
  if (variable !== undefined) return { source: `environment ${variable}`, line: null };
  const line = ids.map((id) => context.lines.get(id)).find((each) => each !== undefined);
  return { source: context.source, line: line ?? null };
}

function findingsOf(issue: Issue, context: FaultContext): readonly Finding[] {
  const path = issue.path.map((segment) => (typeof segment === 'number' ? segment : String(segment)));
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...path, key], ...describeUnknownKey(path, key, context) }));
  }
  const value = valueAt(context.values, path);
  const meant = issue.code === 'invalid_union' ? branchMeant(issue, value) : null;
  if (meant !== null) {
    return meant.flatMap((inner) => findingsOf({ ...inner, path: [...issue.path, ...inner.path] }, context));
  }
  const suggestion = suggestValue(issue, value);
  return [{ path, message: describe(issue, value), suggestion }];
}

function describeUnknownKey(
  table: KeyPath,
  key: string,
  context: FaultContext,
): Pick<ConfigFault, 'message' | 'suggestion'> {
  const former = findFormerKey(context.kind, [...table, key]);
  if (former !== null) return { message: former.message, suggestion: null };
  const known = keysOf(schemasAt(context.schema, table));
  const nearest = findNearest(key, known);
  if (nearest !== null) return { message: 'unknown key', suggestion: nearest };
  const elsewhere = listKeyPaths(context.schema).find((path) => path.length > 1 && path.at(-1) === key);
  if (elsewhere !== undefined) return { message: 'unknown key here', suggestion: elsewhere.join('.') };
  return { message: `unknown key; the keys here are ${known.join(', ')}`, suggestion: null };
}

function describe(issue: Issue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      if (value === undefined) return 'is required';
      return `must be ${typeName(issue.expected)}, not ${describeType(value, issue.expected)}`;
    case 'too_small':
      return describeBound(issue.origin, issue.minimum, issue.inclusive === false ? 'more than' : 'at least');
    case 'too_big':
      return describeBound(issue.origin, issue.maximum, issue.inclusive === false ? 'less than' : 'at most');
    case 'invalid_value':
      return mustBeOneOf(issue.values, value);
    case 'invalid_union':
      return describeUnion(issue, value);
    case 'invalid_key':
      return `is not a valid name here: ${issue.issues.map((inner) => describe(inner, '')).join('; ')}`;
    case 'invalid_format':
      return issue.message.startsWith('Invalid')
        ? `must match ${issue.pattern ?? issue.format}`
        : issue.message;
    default:
      return issue.message;
  }
}

function describeUnion(issue: z.core.$ZodIssueInvalidUnion, value: unknown): string {
  if (issue.errors.length === 0) return mustBeOneOf(optionsOf(issue), value);
  if (value === undefined) return 'is required';
  const branches = issue.errors.flatMap((branch) => branch.slice(0, 1));
  return branches.map((branch) => describe(branch, value)).join(', or ');
}

/** Of a key that may be a table or something else: what is wrong inside the table that it is. */
function branchMeant(issue: z.core.$ZodIssueInvalidUnion, value: unknown): readonly Issue[] | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const tables = issue.errors.filter(
    (branch) => !branch.some((inner) => inner.code === 'invalid_type' && inner.path.length === 0),
  );
  return tables.length === 1 ? (tables[0] ?? null) : null;
}

/** The values of a discriminator; zod's type leaves them out. */
function optionsOf(issue: z.core.$ZodIssueInvalidUnion): readonly unknown[] {
  return (issue as { readonly options?: readonly unknown[] }).options ?? [];
}

function mustBeOneOf(values: readonly unknown[], value: unknown): string {
  const list = values.map((each) => JSON.stringify(each)).join(', ');
  const text = values.length === 1 ? `must be ${list}` : `must be one of ${list}`;
  return value === undefined ? `is required: ${text}` : text;
}

function describeBound(origin: string, bound: number | bigint, relation: string): string {
  if (origin !== 'string' && origin !== 'array') return `must be ${relation} ${bound}`;
  if (relation === 'at least' && bound === 1) return 'must not be empty';
  return `must have ${relation} ${bound} ${origin === 'string' ? 'characters' : 'entries'}`;
}

function suggestValue(issue: Issue, value: unknown): string | null {
  if (typeof value !== 'string') return null;
  if (issue.code === 'invalid_union' && issue.errors.length === 0) {
    return findNearest(value, optionsOf(issue).map(String));
  }
  return issue.code === 'invalid_value' ? findNearest(value, issue.values.map(String)) : null;
}

function typeName(type: string): string {
  const names: Readonly<Record<string, string>> = {
    int: 'a whole number',
    number: 'a number',
    string: 'a string',
    boolean: 'true or false',
    array: 'an array',
    object: 'a table',
    record: 'a table',
  };
  return names[type] ?? type;
}

function describeType(value: unknown, expected: string): string {
  if (Array.isArray(value)) return 'an array';
  if (value instanceof Date) return 'a date';
  if (typeof value === 'number') {
    if (expected === 'int') return 'a fraction';
    return Number.isFinite(value) ? 'a number' : 'inf or nan';
  }
  return typeof value === 'boolean' ? 'a boolean' : typeName(typeof value);
}

function valueAt(values: unknown, path: KeyPath): unknown {
  let value: unknown = values;
  for (const segment of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = (value as Record<string | number, unknown>)[segment];
  }
  return value;
}
