/** Jinja 3.1's filters for text and data, with transformers' `tojson` and llama.cpp's `from_json`. */
import { testOf } from './checks.ts';
import { capitalize, replaceText, strip, titleCase } from './methods.ts';
import { jsonLayout, percentFormat, toJson, toText } from './print.ts';
import {
  arithmetic,
  compare,
  dictItems,
  Float,
  isDict,
  itemOf,
  iterate,
  type Kwargs,
  lengthOf,
  numberOf,
  toFloat,
  truthy,
  typeName,
} from './values.ts';

export type Filter = (input: unknown, args: readonly unknown[], kwargs: Kwargs) => unknown;

export function filterOf(name: string): Filter | undefined {
  return filters.get(name);
}

/** A dotted attribute, as `map(attribute='function.name')` reads it. */
function attributeOf(item: unknown, path: unknown): unknown {
  if (typeof path === 'number') return itemOf(item, path);
  let value = item;
  for (const part of toText(path).split('.')) value = itemOf(value, /^\d+$/.test(part) ? Number(part) : part);
  return value;
}

/** Jinja's select and map take none for an empty list. */
function itemsOf(input: unknown): readonly unknown[] {
  return truthy(input) ? iterate(input) : [];
}

function select(keep: boolean, byAttribute: boolean): Filter {
  return (input, args, kwargs) => {
    const [path, ...rest] = byAttribute ? args : [null, ...args];
    const name = rest[0];
    const test = name === undefined ? truthy : testOf(toText(name));
    if (test === undefined) throw new Error(`there is no test "${toText(name).slice(0, 40)}"`);
    return itemsOf(input).filter((item) => {
      return test(byAttribute ? attributeOf(item, path) : item, rest.slice(1), kwargs) === keep;
    });
  };
}

function sortKey(kwargs: Kwargs, attribute: unknown): (item: unknown) => unknown {
  const caseSensitive = kwargs.get('case_sensitive') === true;
  return (item) => {
    const value = attribute === undefined || attribute === null ? item : attributeOf(item, attribute);
    return typeof value === 'string' && !caseSensitive ? value.toLowerCase() : value;
  };
}

function map(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const attribute = kwargs.get('attribute');
  if (attribute !== undefined) {
    return itemsOf(input).map((item) => attributeOf(item, attribute) ?? kwargs.get('default'));
  }
  const filter = filterOf(toText(args[0]));
  if (filter === undefined) throw new Error(`there is no filter "${toText(args[0]).slice(0, 40)}"`);
  return itemsOf(input).map((item) => filter(item, args.slice(1), kwargs));
}

function tojson(input: unknown, args: readonly unknown[], kwargs: Kwargs): string {
  const indent = args[0] ?? kwargs.get('indent') ?? null;
  const separators = kwargs.get('separators');
  const [item, key] = Array.isArray(separators) ? separators : [];
  const spaces = typeof indent === 'string' ? indent : ' '.repeat(Math.min(numberOf(indent) ?? 0, 32));
  return toJson(input, {
    indent: indent === null ? null : spaces,
    itemSeparator: typeof item === 'string' ? item : indent === null ? jsonLayout.itemSeparator : ',',
    keySeparator: typeof key === 'string' ? key : jsonLayout.keySeparator,
    sortKeys: kwargs.get('sort_keys') === true,
    ensureAscii: kwargs.get('ensure_ascii') === true,
  });
}

function toInt(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const fallback = args[0] ?? kwargs.get('default') ?? 0;
  const number = numberOf(input) ?? (typeof input === 'string' ? readNumber(input) : null);
  return number === null ? fallback : Math.trunc(number);
}

function toFloatFilter(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const number = numberOf(input) ?? (typeof input === 'string' ? readNumber(input) : null);
  return number === null ? (args[0] ?? kwargs.get('default') ?? new Float(0)) : toFloat(number);
}

function readNumber(text: string): number | null {
  const clean = strip(text, null);
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(clean) ? Number(clean) : null;
}

function indent(input: unknown, args: readonly unknown[], kwargs: Kwargs): string {
  const width = args[0] ?? kwargs.get('width') ?? 4;
  const first = truthy(args[1] ?? kwargs.get('first'));
  const blanks = truthy(args[2] ?? kwargs.get('blank'));
  const pad = typeof width === 'string' ? width : ' '.repeat(Math.min(numberOf(width) ?? 4, 1000));
  const lines = toText(input).split('\n');
  return lines.map((line, at) => ((at === 0 ? first : line !== '' || blanks) ? pad + line : line)).join('\n');
}

function dictsort(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  if (!isDict(input)) throw new Error(`dictsort needs a mapping, not ${typeName(input)}`);
  const by = (args[1] ?? kwargs.get('by')) === 'value' ? 1 : 0;
  const fold = sortKey(
    new Map([...kwargs, ['case_sensitive', args[0] ?? kwargs.get('case_sensitive')]]),
    null,
  );
  const sorted = dictItems(input).sort((a, b) => compare(fold(a[by]), fold(b[by])));
  return truthy(args[2] ?? kwargs.get('reverse')) ? sorted.reverse() : sorted;
}

function sort(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const caseSensitive = new Map([...kwargs, ['case_sensitive', args[1] ?? kwargs.get('case_sensitive')]]);
  const key = sortKey(caseSensitive, args[2] ?? kwargs.get('attribute'));
  const sign = truthy(args[0] ?? kwargs.get('reverse')) ? -1 : 1;
  return [...iterate(input)].sort((a, b) => sign * compare(key(a), key(b)));
}

function unique(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const key = sortKey(kwargs, args[1] ?? kwargs.get('attribute'));
  const seen = new Set<unknown>();
  return iterate(input).filter((item) => {
    const id = key(item);
    const marker = typeof id === 'object' && id !== null ? toText(id) : id;
    return seen.has(marker) ? false : seen.add(marker);
  });
}

function extreme(sign: 1 | -1): Filter {
  return (input, args, kwargs) => {
    const key = sortKey(kwargs, args[1] ?? kwargs.get('attribute'));
    let best: unknown;
    for (const item of iterate(input)) {
      if (best === undefined || sign * compare(key(item), key(best)) > 0) best = item;
    }
    return best;
  };
}

function groupby(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const attribute = args[0] ?? kwargs.get('attribute');
  const groups = new Map<unknown, unknown[]>();
  for (const item of iterate(input)) {
    const key = attributeOf(item, attribute);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return [...groups].sort((a, b) => compare(a[0], b[0]));
}

function batch(input: unknown, args: readonly unknown[]): unknown {
  const size = Math.max(1, numberOf(args[0]) ?? 1);
  const items = iterate(input);
  const rows: unknown[][] = [];
  for (let at = 0; at < items.length; at += size) rows.push(items.slice(at, at + size));
  return rows;
}

function round(input: unknown, args: readonly unknown[], kwargs: Kwargs): unknown {
  const scale = 10 ** Math.min(numberOf(args[0] ?? kwargs.get('precision') ?? 0) ?? 0, 20);
  const method = args[1] ?? kwargs.get('method') ?? 'common';
  const value = (numberOf(input) ?? 0) * scale;
  const whole =
    method === 'ceil' ? Math.ceil(value) : method === 'floor' ? Math.floor(value) : Math.round(value);
  return toFloat(whole / scale);
}

function fromJson(input: unknown): unknown {
  if (typeof input !== 'string') return input;
  try {
    return JSON.parse(input);
  } catch (cause) {
    throw new Error('from_json was given text that is not JSON', { cause });
  }
}

function join(input: unknown, args: readonly unknown[], kwargs: Kwargs): string {
  const attribute = args[1] ?? kwargs.get('attribute');
  const items = iterate(input);
  const parts = attribute === undefined ? items : items.map((item) => attributeOf(item, attribute));
  return parts.map(toText).join(toText(args[0] ?? kwargs.get('d') ?? ''));
}

const escapes: ReadonlyMap<string, string> = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ['"', '&#34;'],
  ["'", '&#39;'],
]);
const escapeHtml: Filter = (input) => toText(input).replace(/[&<>"']/g, (char) => escapes.get(char) ?? char);

const fallback: Filter = (input, args, kwargs) => {
  const isFalsy = truthy(args[1] ?? kwargs.get('boolean')) && !truthy(input);
  return input === undefined || isFalsy
    ? args.length > 0
      ? args[0]
      : (kwargs.get('default_value') ?? '')
    : input;
};

const filters: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['tojson', tojson],
  ['from_json', fromJson],
  ['fromjson', fromJson],
  ['length', lengthOf],
  ['count', lengthOf],
  ['trim', (input, args, kwargs) => strip(toText(input), args[0] ?? kwargs.get('chars'))],
  ['string', (input) => toText(input)],
  ['safe', (input) => input],
  ['default', fallback],
  ['d', fallback],
  ['join', join],
  ['items', (input) => (input === undefined ? [] : toEntries(input))],
  ['dictsort', dictsort],
  ['list', (input) => [...iterate(input)]],
  ['first', (input) => iterate(input)[0]],
  ['last', (input) => iterate(input).at(-1)],
  ['upper', (input) => toText(input).toUpperCase()],
  ['lower', (input) => toText(input).toLowerCase()],
  ['capitalize', (input) => capitalize(toText(input))],
  ['title', (input) => titleCase(toText(input))],
  [
    'replace',
    (input, args, kwargs) => replaceText(toText(input), args[0], args[1], args[2] ?? kwargs.get('count')),
  ],
  ['map', map],
  ['select', select(true, false)],
  ['reject', select(false, false)],
  ['selectattr', select(true, true)],
  ['rejectattr', select(false, true)],
  ['indent', indent],
  ['int', toInt],
  ['float', toFloatFilter],
  ['abs', (input) => Math.abs(numberOf(input) ?? 0)],
  ['round', round],
  ['sum', (input, args) => iterate(input).reduce((sum, item) => arithmetic('+', sum, item), args[1] ?? 0)],
  ['min', extreme(-1)],
  ['max', extreme(1)],
  ['sort', sort],
  ['unique', unique],
  ['groupby', groupby],
  ['batch', batch],
  [
    'reverse',
    (input) => (typeof input === 'string' ? [...input].reverse().join('') : [...iterate(input)].reverse()),
  ],
  ['attr', (input, args) => itemOf(input, args[0])],
  ['format', (input, args) => percentFormat(toText(input), args)],
  ['wordcount', (input) => (toText(input).match(/[\p{L}\p{N}_]+/gu) ?? []).length],
  ['escape', escapeHtml],
  ['e', escapeHtml],
]);

function toEntries(input: unknown): unknown {
  if (isDict(input)) return dictItems(input);
  throw new Error(`"items" needs a mapping, not ${typeName(input)}`);
}
