/**
 * What differs between two configurations, for a person: one line a key. Values of keys and tokens are never
 * shown. Tables in an array are told apart by their name, so that one that moved has not changed.
 */

/** What a reload did. Each line names a key; `needsRestart` is what it could not do. */
export interface ReloadReport {
  readonly changed: readonly string[];
  readonly needsRestart: readonly string[];
  /** What follows from the changes and is not obvious. */
  readonly notes: readonly string[];
}

export interface ConfigChange {
  /** Dotted, e.g. `gateway.poll_interval_secs`, `neurons.beast`. */
  readonly key: string;
  /** e.g. `gateway.poll_interval_secs: 10 -> 5`, `neurons.beast: added`. */
  readonly line: string;
}

const identities = ['name', 'id', 'model_id', 'key_id', 'index'] as const;
const secrets: ReadonlySet<string> = new Set(['key', 'neuron_key', 'admin_keys']);
const shownMax = 80;

export function diffConfig(before: unknown, after: unknown): readonly ConfigChange[] {
  return diff('', '', before, after);
}

/** `isRestart`: whether a change of that key takes effect only at the next start. */
export function toReloadReport(
  changes: readonly ConfigChange[],
  isRestart: (key: string) => boolean,
  notes: readonly string[] = [],
): ReloadReport {
  const lines = (restart: boolean): string[] =>
    changes.filter(({ key }) => isRestart(key) === restart).map(({ line }) => line);
  return { changed: lines(false), needsRestart: lines(true), notes };
}

function diff(path: string, name: string, before: unknown, after: unknown): ConfigChange[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  const [left, right] = [toTable(before), toTable(after)];
  if (left === null || right === null || secrets.has(name)) return [toChange(path, name, before, after)];
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  return keys.flatMap((key) => diff(path === '' ? key : `${path}.${key}`, key, left[key], right[key]));
}

/** A table as it is, an array of named tables by name; null = compared as one value. */
function toTable(value: unknown): Readonly<Record<string, unknown>> | null {
  if (typeof value !== 'object' || value === null) return null;
  if (!Array.isArray(value)) return value as Record<string, unknown>;
  const named = new Map<string, unknown>();
  for (const item of value) {
    const name = nameOf(item);
    if (name === null) return null;
    // two of one name: the second is told apart by its place
    named.set(named.has(name) ? `${name}#${named.size}` : name, item);
  }
  return Object.fromEntries(named);
}

function nameOf(item: unknown): string | null {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return null;
  for (const key of identities) {
    const value = (item as Record<string, unknown>)[key];
    if (typeof value === 'string' || typeof value === 'number') return String(value);
  }
  return null;
}

function toChange(key: string, name: string, before: unknown, after: unknown): ConfigChange {
  const isShown = !secrets.has(name) && isPlain(before) && isPlain(after);
  if (isShown && before !== undefined && after !== undefined) {
    return { key, line: `${key}: ${show(before)} -> ${show(after)}` };
  }
  const what = before === undefined ? 'added' : after === undefined ? 'removed' : 'changed';
  return { key, line: `${key}: ${what}` };
}

function isPlain(value: unknown): boolean {
  return typeof value !== 'object' || value === null;
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > shownMax ? `${text.slice(0, shownMax)}...` : text;
}
