/** The methods that a template may call on strings, lists and mappings: Python's, by name. */
import { braceFormat, toText } from './print.ts';
import {
  bounded,
  type Callable,
  compare,
  dictDelete,
  dictEntries,
  dictGet,
  dictHas,
  dictItems,
  dictKeys,
  dictSet,
  equals,
  isDict,
  iterate,
  type Kwargs,
  lengthOf,
  numberOf,
  typeName,
} from './values.ts';

type Method<T> = (self: T, args: readonly unknown[], kwargs: Kwargs) => unknown;

/** What `value.name` is when it is a method; undefined when there is none of that name. */
export function methodOf(value: unknown, name: string): Callable | undefined {
  if (typeof value === 'string') return bind(stringMethods, value, name);
  if (Array.isArray(value)) return bind(listMethods, value, name);
  return isDict(value) ? bind(dictMethods, value, name) : undefined;
}

function bind<T>(table: ReadonlyMap<string, Method<T>>, self: T, name: string): Callable | undefined {
  const method = table.get(name);
  return method === undefined ? undefined : (args, kwargs) => method(self, args, kwargs);
}

const blank =
  '\\t\\n\\v\\f\\r \\x1c-\\x1f\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const blankStart = new RegExp(`^[${blank}]+`);
const blankChar = new RegExp(`[${blank}]`);
const words = new RegExp(`[^${blank}]+`, 'g');

/** Python's strip(): without `chars` its white space, which is not quite JavaScript's. */
export function strip(text: string, chars: unknown, side: 'both' | 'left' | 'right' = 'both'): string {
  if (typeof chars === 'string') return stripChars(text, new Set(chars), side);
  let end = text.length;
  if (side !== 'left') while (end > 0 && blankChar.test(text[end - 1] ?? '')) end--;
  const cut = text.slice(0, end);
  return side === 'right' ? cut : cut.replace(blankStart, '');
}

function stripChars(text: string, chars: ReadonlySet<string>, side: 'both' | 'left' | 'right'): string {
  let start = 0;
  let end = text.length;
  if (side !== 'right') while (start < end && chars.has(text[start] ?? '')) start++;
  if (side !== 'left') while (end > start && chars.has(text[end - 1] ?? '')) end--;
  return text.slice(start, end);
}

export function capitalize(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();
}

export function titleCase(text: string): string {
  return text.replace(/\p{L}+/gu, (word) => (word[0] ?? '').toUpperCase() + word.slice(1).toLowerCase());
}

export function replaceText(text: string, from: unknown, to: unknown, count: unknown): string {
  const [old, fresh] = [toText(from), toText(to)];
  const times = numberOf(count ?? -1) ?? -1;
  if (times < 0) return text.replaceAll(old, () => fresh);
  const parts = text.split(old);
  if (parts.length - 1 <= times) return parts.join(fresh);
  return parts.slice(0, times + 1).join(fresh) + old + parts.slice(times + 1).join(old);
}

function split(text: string, args: readonly unknown[], kwargs: Kwargs, fromRight: boolean): string[] {
  const separator = args[0] ?? kwargs.get('sep') ?? null;
  const given = numberOf(args[1] ?? kwargs.get('maxsplit') ?? -1) ?? -1;
  if (separator === '') throw new Error('split() needs a separator that is not empty');
  if (separator !== null && typeof separator !== 'string') {
    throw new Error(`split() needs a string, not ${typeName(separator)}`);
  }
  if (separator === null) return splitBlank(text, given, fromRight);
  const parts = text.split(separator);
  if (given < 0 || parts.length - 1 <= given) return parts;
  return fromRight
    ? [parts.slice(0, parts.length - given).join(separator), ...parts.slice(parts.length - given)]
    : [...parts.slice(0, given), parts.slice(given).join(separator)];
}

function splitBlank(text: string, max: number, fromRight: boolean): string[] {
  const found = [...text.matchAll(words)];
  if (max < 0 || found.length - 1 <= max) return found.map((match) => match[0]);
  if (fromRight) {
    const last = found[found.length - max - 1];
    const head = text.slice(0, (last?.index ?? 0) + (last?.[0].length ?? 0));
    return [strip(head, null), ...found.slice(found.length - max).map((match) => match[0])];
  }
  return [...found.slice(0, max).map((match) => match[0]), strip(text.slice(found[max]?.index ?? 0), null)];
}

function affix(text: string, given: unknown, has: (part: string) => boolean): boolean {
  const parts = Array.isArray(given) ? given : [given];
  return parts.some((part) => {
    if (typeof part === 'string') return has(part);
    throw new Error(
      `startswith() and endswith() need strings, not ${typeName(part)} (on ${text.length} characters)`,
    );
  });
}

function within(text: string, args: readonly unknown[]): string {
  return args.length < 2 ? text : text.slice(numberOf(args[1]) ?? 0, numberOf(args[2] ?? null) ?? undefined);
}

function pad(text: string, args: readonly unknown[], side: 'left' | 'right' | 'both'): string {
  const missing = Math.min(numberOf(args[0]) ?? 0, 100_000) - lengthOf(text);
  if (missing <= 0) return text;
  const fill = typeof args[1] === 'string' ? args[1] : ' ';
  const before = side === 'left' ? missing : side === 'right' ? 0 : Math.floor(missing / 2);
  return fill.repeat(before) + text + fill.repeat(missing - before);
}

function every(text: string, pattern: RegExp): boolean {
  return text !== '' && pattern.test(text);
}

const stringMethods: ReadonlyMap<string, Method<string>> = new Map<string, Method<string>>([
  ['upper', (text) => text.toUpperCase()],
  ['lower', (text) => text.toLowerCase()],
  ['casefold', (text) => text.toLowerCase()],
  ['capitalize', (text) => capitalize(text)],
  ['title', (text) => titleCase(text)],
  ['strip', (text, args) => strip(text, args[0])],
  ['lstrip', (text, args) => strip(text, args[0], 'left')],
  ['rstrip', (text, args) => strip(text, args[0], 'right')],
  ['startswith', (text, args) => affix(text, args[0], (part) => within(text, args).startsWith(part))],
  ['endswith', (text, args) => affix(text, args[0], (part) => within(text, args).endsWith(part))],
  ['split', (text, args, kwargs) => split(text, args, kwargs, false)],
  ['rsplit', (text, args, kwargs) => split(text, args, kwargs, true)],
  [
    'splitlines',
    (text, args) => {
      const lines = text.match(/[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$/g) ?? [];
      return args[0] === true ? [...lines] : lines.map((line) => line.replace(/[\r\n]+$/, ''));
    },
  ],
  ['join', (text, args) => iterate(args[0]).map(toJoinable).join(text)],
  ['replace', (text, args, kwargs) => replaceText(text, args[0], args[1], args[2] ?? kwargs.get('count'))],
  ['find', (text, args) => text.indexOf(toText(args[0]), numberOf(args[1] ?? 0) ?? 0)],
  ['rfind', (text, args) => text.lastIndexOf(toText(args[0]))],
  ['count', (text, args) => text.split(toText(args[0])).length - 1],
  [
    'index',
    (text, args) => {
      const at = text.indexOf(toText(args[0]));
      if (at === -1) throw new Error('index() did not find the text');
      return at;
    },
  ],
  [
    'partition',
    (text, args) => {
      const separator = toText(args[0]);
      const at = text.indexOf(separator);
      return at === -1 ? [text, '', ''] : [text.slice(0, at), separator, text.slice(at + separator.length)];
    },
  ],
  [
    'rpartition',
    (text, args) => {
      const separator = toText(args[0]);
      const at = text.lastIndexOf(separator);
      return at === -1 ? ['', '', text] : [text.slice(0, at), separator, text.slice(at + separator.length)];
    },
  ],
  [
    'removeprefix',
    (text, [part]) => (text.startsWith(toText(part)) ? text.slice(toText(part).length) : text),
  ],
  [
    'removesuffix',
    (text, [part]) =>
      part !== '' && text.endsWith(toText(part)) ? text.slice(0, -toText(part).length) : text,
  ],
  ['ljust', (text, args) => pad(text, args, 'right')],
  ['rjust', (text, args) => pad(text, args, 'left')],
  ['center', (text, args) => pad(text, args, 'both')],
  ['zfill', (text, args) => pad(text, [args[0], '0'], 'left')],
  ['isdigit', (text) => every(text, /^\p{Nd}+$/u)],
  ['isnumeric', (text) => every(text, /^\p{N}+$/u)],
  ['isalpha', (text) => every(text, /^\p{L}+$/u)],
  ['isalnum', (text) => every(text, /^[\p{L}\p{N}]+$/u)],
  ['isspace', (text) => text !== '' && strip(text, null) === ''],
  ['isupper', (text) => text === text.toUpperCase() && text !== text.toLowerCase()],
  ['islower', (text) => text === text.toLowerCase() && text !== text.toUpperCase()],
  ['format', (text, args, kwargs) => braceFormat(text, args, kwargs)],
]);

function toJoinable(part: unknown): string {
  if (typeof part === 'string') return part;
  throw new Error(`join() needs strings, not ${typeName(part)}`);
}

const listMethods: ReadonlyMap<string, Method<unknown[]>> = new Map<string, Method<unknown[]>>([
  ['append', (list, args) => void bounded(list).push(args[0])],
  ['extend', (list, args) => void bounded(list).push(...iterate(args[0]))],
  ['insert', (list, args) => void bounded(list).splice(numberOf(args[0]) ?? 0, 0, args[1])],
  ['pop', (list, args) => list.splice(numberOf(args[0] ?? -1) ?? -1, 1)[0]],
  ['reverse', (list) => void list.reverse()],
  ['sort', (list) => void list.sort(compare)],
  ['copy', (list) => [...list]],
  ['clear', (list) => void list.splice(0)],
  ['index', (list, args) => list.findIndex((each) => equals(each, args[0]))],
  ['count', (list, args) => list.filter((each) => equals(each, args[0])).length],
]);

const dictMethods: ReadonlyMap<string, Method<object>> = new Map<string, Method<object>>([
  ['get', (dict, args) => (dictHas(dict, args[0]) ? dictGet(dict, args[0]) : (args[1] ?? null))],
  ['items', (dict) => dictItems(dict)],
  ['keys', (dict) => dictKeys(dict)],
  ['values', (dict) => dictEntries(dict).map(([, value]) => value)],
  ['copy', (dict) => new Map(dictEntries(dict))],
  [
    'pop',
    (dict, args) => {
      if (!dictHas(dict, args[0])) {
        if (args.length > 1) return args[1];
        throw new Error(`pop() did not find ${toText(args[0]).slice(0, 40)}`);
      }
      const value = dictGet(dict, args[0]);
      dictDelete(dict, args[0]);
      return value;
    },
  ],
  [
    'setdefault',
    (dict, args) => {
      if (!dictHas(dict, args[0])) dictSet(dict, args[0], args[1] ?? null);
      return dictGet(dict, args[0]);
    },
  ],
  [
    'update',
    (dict, args, kwargs) => {
      if (isDict(args[0])) for (const [key, value] of dictEntries(args[0])) dictSet(dict, key, value);
      for (const [key, value] of kwargs) dictSet(dict, key, value);
      return null;
    },
  ],
]);
