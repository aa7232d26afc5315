/**
 * Python's view of JavaScript values, as far as templates can tell the difference.
 *
 * str, bool, None, undefined = string, boolean, null, undefined; a list or tuple = array; a dict = a plain
 * object (from JSON, never copied) or a Map (made by the template); int = number; float = number, or `Float`
 * where the number alone would look like an int. Lengths and slices count code points.
 * Faults are plain Errors here; who evaluates adds the line.
 */

export type Kwargs = ReadonlyMap<string, unknown>;
export type Callable = (args: readonly unknown[], kwargs: Kwargs) => unknown;

/** A float with an integral value, which prints as `1.0`. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** A list that prints with round brackets. */
export class Tuple extends Array<unknown> {
  /** What is made of a tuple is a list. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  static of2(first: unknown, second: unknown): Tuple {
    const tuple = new Tuple(2);
    tuple[0] = first;
    tuple[1] = second;
    return tuple;
  }
}

/** Jinja's `namespace()`: the one thing whose attributes a template may set. */
export class Namespace {
  readonly fields: Map<string, unknown>;

  constructor(fields: Iterable<readonly [string, unknown]>) {
    this.fields = new Map(fields);
  }
}

/** Something with attributes that are computed when read, such as `loop`. */
export abstract class Attributed {
  abstract attribute(name: string): unknown;
}

/** Characters of one text. */
const textMax = 64 * 1024 * 1024;
/** Elements of one list; templates are foreign code. */
const lengthMax = 10_000_000;

export function toFloat(value: number): number | Float {
  return Number.isInteger(value) ? new Float(value) : value;
}

export function isDict(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  if (value instanceof Map) return true;
  return !(value instanceof Float || value instanceof Namespace || value instanceof Attributed);
}

export function dictGet(dict: object, key: unknown): unknown {
  if (dict instanceof Map) return dict.get(key);
  return typeof key === 'string' && Object.hasOwn(dict, key) ? (dict as Dict)[key] : undefined;
}

export function dictHas(dict: object, key: unknown): boolean {
  return dict instanceof Map ? dict.has(key) : typeof key === 'string' && Object.hasOwn(dict, key);
}

export function dictSet(dict: object, key: unknown, value: unknown): void {
  if (dict instanceof Map) dict.set(key, value);
  else {
    const field = { value, enumerable: true, writable: true, configurable: true };
    Object.defineProperty(dict, String(key), field); // also a key named __proto__
  }
}

export function dictDelete(dict: object, key: unknown): void {
  if (dict instanceof Map) dict.delete(key);
  else delete (dict as Dict)[String(key)];
}

export function dictEntries(dict: object): [unknown, unknown][] {
  return dict instanceof Map ? [...dict.entries()] : Object.entries(dict);
}

/** `dict.items()`. */
export function dictItems(dict: object): Tuple[] {
  return dictEntries(dict).map(([key, value]) => Tuple.of2(key, value));
}

export function dictKeys(dict: object): unknown[] {
  return dict instanceof Map ? [...dict.keys()] : Object.keys(dict);
}

type Dict = { [key: string]: unknown };

export function truthy(value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  if (value === undefined || value === null || value === '' || value === 0) return false;
  if (typeof value !== 'object') return true;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Map) return value.size > 0;
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Namespace || value instanceof Attributed) return true;
  for (const key in value) if (Object.hasOwn(value, key)) return true;
  return false;
}

/** What the value is called in a message. */
export function typeName(value: unknown): string {
  if (value === undefined) return 'undefined';
  if (value === null) return 'none';
  if (typeof value === 'string') return 'a string';
  if (typeof value === 'boolean') return 'a boolean';
  if (typeof value === 'number' || value instanceof Float) return 'a number';
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'a list';
  return value instanceof Namespace ? 'a namespace' : 'a mapping';
}

/** Null when it is no number; booleans count as 0 and 1. */
export function numberOf(value: unknown): number | null {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return value ? 1 : 0;
  return value instanceof Float ? value.value : null;
}

function isFloat(value: unknown): boolean {
  return value instanceof Float || (typeof value === 'number' && !Number.isInteger(value));
}

export function equals(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null || y !== null) return x === y;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((each, at) => equals(each, b[at]));
  }
  if (!isDict(a) || !isDict(b)) return false;
  const entries = dictEntries(a);
  return (
    entries.length === dictKeys(b).length &&
    entries.every(([key, value]) => dictHas(b, key) && equals(value, dictGet(b, key)))
  );
}

/** Below, at or above zero; throws for what has no order. */
export function compare(a: unknown, b: unknown): number {
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : a > b ? 1 : 0;
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (Array.isArray(a) && Array.isArray(b)) {
    for (let at = 0; at < Math.min(a.length, b.length); at++) {
      if (!equals(a[at], b[at])) return compare(a[at], b[at]);
    }
    return a.length - b.length;
  }
  throw new Error(`${typeName(a)} and ${typeName(b)} have no order`);
}

export function contains(container: unknown, item: unknown): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item);
    throw new Error(`"in" a string needs a string, not ${typeName(item)}`);
  }
  if (Array.isArray(container)) {
    return container.includes(item) || container.some((each) => equals(each, item));
  }
  if (container === undefined) return false;
  if (isDict(container)) return dictHas(container, item);
  throw new Error(`"in" needs a list, a mapping or a string, not ${typeName(container)}`);
}

/** Elements to loop over: of a mapping its keys, of a string its characters, of undefined none. */
export function iterate(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  if (value === undefined) return [];
  if (typeof value === 'string') return [...value];
  if (isDict(value)) return dictKeys(value);
  throw new Error(`${typeName(value)} cannot be looped over`);
}

const surrogate = /[\ud800-\udfff]/;

export function lengthOf(value: unknown): number {
  if (typeof value === 'string') return surrogate.test(value) ? [...value].length : value.length;
  if (Array.isArray(value)) return value.length;
  if (value === undefined) return 0;
  if (isDict(value)) return value instanceof Map ? value.size : Object.keys(value).length;
  throw new Error(`${typeName(value)} has no length`);
}

/** `object[index]`, undefined where there is nothing. */
export function itemOf(object: unknown, index: unknown): unknown {
  if (Array.isArray(object) || typeof object === 'string') {
    const at = numberOf(index);
    if (at === null) return undefined;
    if (typeof object === 'string' && surrogate.test(object)) return [...object].at(at);
    return object.at(at);
  }
  if (object instanceof Namespace) return object.fields.get(String(index));
  if (object instanceof Attributed) return object.attribute(String(index));
  return isDict(object) ? dictGet(object, index) : undefined;
}

/** `object[start:stop:step]` with Python's bounds. */
export function sliceOf(object: unknown, bounds: readonly unknown[]): unknown {
  if (object === undefined || object === null) throw new Error(`${typeName(object)} cannot be sliced`);
  const isText = typeof object === 'string';
  const plain = isText && !surrogate.test(object);
  const items = plain ? object : iterate(object);
  const step = numberOf(bounds[2] ?? 1) ?? 1;
  if (step === 0) throw new Error('the step of a slice must not be 0');
  const { length } = items;
  const clamp = (given: unknown, fallback: number): number => {
    const at = numberOf(given ?? null);
    if (at === null) return fallback;
    const from = at < 0 ? at + length : at;
    return Math.min(Math.max(from, step < 0 ? -1 : 0), step < 0 ? length - 1 : length);
  };
  const start = clamp(bounds[0], step < 0 ? length - 1 : 0);
  const stop = clamp(bounds[1], step < 0 ? -1 : length);
  if (step === 1) {
    if (plain) return object.slice(start, Math.max(stop, start));
    const cut = (items as readonly unknown[]).slice(start, Math.max(stop, start));
    return isText ? cut.join('') : cut;
  }
  const taken: unknown[] = [];
  for (let at = start; step < 0 ? at > stop : at < stop; at += step) taken.push(items[at]);
  return isText ? taken.join('') : taken;
}

export function arithmetic(op: string, a: unknown, b: unknown): unknown {
  if (op === '+' && typeof a === 'string' && typeof b === 'string') return joined(a, b);
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return calculate(op, x, y, isFloat(a) || isFloat(b));
  if (op === '+' && Array.isArray(a) && Array.isArray(b)) return bounded([...a, ...b]);
  if (op === '*') {
    const [sequence, times] = y === null ? [b, x] : [a, y];
    if (typeof sequence === 'string' && times !== null) {
      if (sequence.length * times > textMax) throw new Error('a text grows too long');
      return sequence.repeat(Math.max(0, times));
    }
    if (Array.isArray(sequence) && times !== null) {
      if (sequence.length * times > lengthMax) throw new Error('a list grows too long');
      return Array.from({ length: Math.max(0, times) }, () => sequence).flat(1);
    }
  }
  const hint = op === '+' && (typeof a === 'string' || typeof b === 'string') ? '; use ~ to join' : '';
  throw new Error(`"${op}" does not work on ${typeName(a)} and ${typeName(b)}${hint}`);
}

function calculate(op: string, x: number, y: number, float: boolean): unknown {
  if (y === 0 && (op === '/' || op === '//' || op === '%')) throw new Error('division by zero');
  const result = (value: number): unknown => (float ? toFloat(value) : value);
  switch (op) {
    case '+':
      return result(x + y);
    case '-':
      return result(x - y);
    case '*':
      return result(x * y);
    case '/':
      return toFloat(x / y);
    case '//':
      return result(Math.floor(x / y));
    case '%':
      return result(((x % y) + y) % y);
    default:
      return float || y < 0 ? toFloat(x ** y) : x ** y;
  }
}

/** Two texts as one; a loop that doubles a text ends here, while it is still cheap. */
export function joined(a: string, b: string): string {
  if (a.length + b.length > textMax) throw new Error('a text grows too long');
  return a + b;
}

export function bounded<T>(items: T[]): T[] {
  if (items.length > lengthMax) throw new Error('a list grows too long');
  return items;
}
