/** Values -> text: Python's str() and repr(), and JSON as json.dumps writes it. */
import { dictEntries, Float, isDict, lengthOf, Namespace, numberOf, Tuple } from './values.ts';

const depthMax = 100;

/** `str(value)`; undefined prints as nothing. */
export function toText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value === undefined) return '';
  return repr(value, 0);
}

function repr(value: unknown, depth = 0): string {
  if (depth > depthMax) throw new Error('a value is nested too deeply to print');
  if (typeof value === 'string') return quote(value);
  if (value === null) return 'None';
  if (value === undefined) return 'Undefined';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  const number = numberOf(value);
  if (number !== null) return numberText(number, value instanceof Float);
  if (Array.isArray(value)) {
    const items = value.map((each) => repr(each, depth + 1)).join(', ');
    if (!(value instanceof Tuple)) return `[${items}]`;
    return value.length === 1 ? `(${items},)` : `(${items})`;
  }
  if (isDict(value)) {
    const pairs = dictEntries(value).map(
      ([key, each]) => `${repr(key, depth + 1)}: ${repr(each, depth + 1)}`,
    );
    return `{${pairs.join(', ')}}`;
  }
  return typeof value === 'function' ? '<function>' : value instanceof Namespace ? '<Namespace>' : '<object>';
}

/** As Python prints a number: `1e-05`, `1e+16`, `1.0`. */
function numberText(value: number, isFloat: boolean): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf';
  if (Number.isInteger(value)) {
    if (!isFloat) return Math.abs(value) < 1e21 ? String(value) : BigInt(value).toString();
    return Math.abs(value) < 1e16 ? value.toFixed(1) : exponent(value.toExponential());
  }
  return Math.abs(value) < 1e-4 ? exponent(value.toExponential()) : String(value);
}

function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, 'e$10$2');
}

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = text.replace(/[\\'"\p{Cc}]/gu, (char) => {
    if (char === '\n') return '\\n';
    if (char === '\r') return '\\r';
    if (char === '\t') return '\\t';
    if (char === '\\') return '\\\\';
    if (char === "'" || char === '"') return char === mark ? `\\${char}` : char;
    return `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
  return mark + body + mark;
}

export interface JsonLayout {
  /** Text of one level; null = one line. */
  readonly indent: string | null;
  readonly itemSeparator: string;
  readonly keySeparator: string;
  readonly sortKeys: boolean;
  readonly ensureAscii: boolean;
}

export const jsonLayout: JsonLayout = {
  indent: null,
  itemSeparator: ', ',
  keySeparator: ': ',
  sortKeys: false,
  ensureAscii: false,
};

export function toJson(value: unknown, layout: JsonLayout = jsonLayout, depth = 0): string {
  if (depth > depthMax) throw new Error('a value is nested too deeply for JSON');
  if (typeof value === 'string') return jsonString(value, layout.ensureAscii);
  if (value === null) return 'null';
  if (typeof value === 'boolean') return value ? 'true' : 'false';
  const number = numberOf(value);
  if (number !== null) return numberText(number, value instanceof Float);
  if (Array.isArray(value)) {
    return enclose(
      '[',
      value.map((each) => toJson(each, layout, depth + 1)),
      ']',
      layout,
      depth,
    );
  }
  if (isDict(value)) return toJsonObject(value, layout, depth);
  if (value === undefined) throw new Error('undefined cannot be written as JSON');
  throw new Error('a function or namespace cannot be written as JSON');
}

function toJsonObject(value: object, layout: JsonLayout, depth: number): string {
  const entries = dictEntries(value).filter(([, each]) => each !== undefined);
  if (layout.sortKeys) entries.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  const pairs = entries.map(([key, each]) => {
    const name = typeof key === 'string' ? key : toJson(key, jsonLayout);
    return jsonString(name, layout.ensureAscii) + layout.keySeparator + toJson(each, layout, depth + 1);
  });
  return enclose('{', pairs, '}', layout, depth);
}

function enclose(
  open: string,
  items: readonly string[],
  close: string,
  layout: JsonLayout,
  depth: number,
): string {
  if (items.length === 0) return open + close;
  if (layout.indent === null) return open + items.join(layout.itemSeparator) + close;
  const inner = `\n${layout.indent.repeat(depth + 1)}`;
  return `${open}${inner}${items.join(layout.itemSeparator + inner)}\n${layout.indent.repeat(depth)}${close}`;
}

function jsonString(text: string, ensureAscii: boolean): string {
  const json = JSON.stringify(text);
  if (!ensureAscii) return json;
  return json.replace(/[\u007f-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** `'%s of %d' % values`. */
export function percentFormat(template: string, given: unknown): string {
  const values = Array.isArray(given) ? [...given] : [given];
  return template.replace(/%(-?\d*)(?:\.(\d+))?([sdifxXr%])/g, (_, width: string, digits, kind: string) => {
    if (kind === '%') return '%';
    if (values.length === 0) throw new Error('not enough values for a % format');
    const text = formatOne(values.shift(), kind, digits === undefined ? null : Number(digits));
    const columns = Math.min(Math.abs(Number(width || 0)), 1000);
    return width.startsWith('-') ? text.padEnd(columns) : text.padStart(columns);
  });
}

function formatOne(value: unknown, kind: string, digits: number | null): string {
  if (kind === 's') return digits === null ? toText(value) : toText(value).slice(0, digits);
  if (kind === 'r') return repr(value);
  const number = numberOf(value);
  if (number === null) throw new Error(`%${kind} needs a number`);
  if (kind === 'f') return number.toFixed(Math.min(digits ?? 6, 100));
  const whole = Math.trunc(number);
  return kind === 'x' ? whole.toString(16) : kind === 'X' ? whole.toString(16).toUpperCase() : String(whole);
}

/** `'{} of {name:>8}'.format(...)`, with fills, widths, `,` and the types d, f, s and x. */
export function braceFormat(
  template: string,
  args: readonly unknown[],
  kwargs: ReadonlyMap<string, unknown>,
): string {
  let next = 0;
  return template.replace(
    /\{\{|\}\}|\{([\w]*)((?:\.\w+|\[\w+\])*)(?:![rs])?(?::([^{}]*))?\}/g,
    (whole, name: string | undefined, path: string, spec: string | undefined) => {
      if (whole === '{{' || whole === '}}') return whole.slice(1);
      if (path !== '') throw new Error('format() takes names and numbers only');
      const value = name ? (/^\d+$/.test(name) ? args[Number(name)] : kwargs.get(name)) : args[next++];
      if (value === undefined) throw new Error(`format() has no value for ${whole}`);
      return applySpec(value, spec ?? '');
    },
  );
}

function applySpec(value: unknown, spec: string): string {
  const match = /^(?:(.)?([<>^]))?(0)?(\d{0,3})(,)?(?:\.(\d{1,2}))?([dfsx])?$/u.exec(spec);
  if (match === null) throw new Error(`format() does not know ":${spec.slice(0, 20)}"`);
  const [, fill, align, zero, width, comma, digits, kind] = match;
  const number = numberOf(value);
  let text = toText(value);
  if (number !== null && typeof value !== 'boolean') {
    if (kind === 'f' || digits !== undefined) text = number.toFixed(Number(digits ?? 6));
    else if (kind === 'x') text = number.toString(16);
    if (comma !== undefined) text = text.replace(/\B(?=(\d{3})+(?!\d))/g, ',');
  } else if (digits !== undefined) text = text.slice(0, Number(digits));
  const missing = Number(width || 0) - lengthOf(text);
  if (missing <= 0) return text;
  const pad = fill ?? (zero === undefined ? ' ' : '0');
  const side = align ?? (number === null ? '<' : '>');
  const before = side === '>' ? missing : side === '<' ? 0 : Math.floor(missing / 2);
  return pad.repeat(before) + text + pad.repeat(missing - before);
}
