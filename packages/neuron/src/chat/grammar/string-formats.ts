/**
 * The formats of JSON Schema (draft 2020-12, 7.3) and of OpenAI's structured outputs as patterns. Each stands
 * for the format or for a part of it: what is generated is always valid.
 */
import { type Pattern, parsePattern } from './regex-grammar.ts';

const byte = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const ipv4 = `${byte}(\\.${byte}){3}`;
const group = '[0-9a-fA-F]{1,4}';
const ipv6 = [
  `(${group}:){7}${group}`,
  ...Array.from({ length: 8 }, (_, left) => {
    const head = left === 0 ? '' : `${group}(:${group}){0,${left - 1}}`;
    const tail = left === 7 ? '' : `(${group}(:${group}){0,${6 - left}})?`;
    return `${head}::${tail}`;
  }),
].join('|');

const yearLeap = '(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)';
const monthDay = [
  '(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])',
  '(0[469]|11)-(0[1-9]|[12]\\d|30)',
  '02-(0[1-9]|1\\d|2[0-8])',
].join('|');
const date = `(\\d{4}-(${monthDay})|${yearLeap}-02-29)`;
const time = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)';

const label = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?';
const hostname = `${label}(\\.${label}){0,5}`;
const atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,16}";
const email = `${atom}(\\.${atom}){0,2}@${label}(\\.${label}){1,3}`;

const escaped = '%[0-9A-F]{2}';
const segment = `([a-zA-Z0-9._~!$&'()*+,;=:@-]|${escaped})`;
const uri =
  `[a-zA-Z][a-zA-Z0-9+.-]{1,11}://${hostname}(:[1-9]\\d{0,3})?(/${segment}{0,64}){0,8}` +
  `(\\?(${segment}|[/?]){0,128})?(#(${segment}|[/?]){0,64})?`;
const duration =
  'P((\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|\\d{1,4}M(\\d{1,4}D)?|\\d{1,4}D)' +
  '(T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S))?' +
  '|T(\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|\\d{1,4}M(\\d{1,4}S)?|\\d{1,4}S)|\\d{1,4}W)';
const uuid = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const base64 = '([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?';
const pointer = '(/([^~/]|~[01])*)*';

const patterns: Readonly<Record<string, string>> = {
  date,
  time,
  'date-time': `${date}T${time}`,
  duration,
  email,
  'idn-email': email,
  hostname,
  'idn-hostname': hostname,
  ipv4,
  ipv6: `(${ipv6})`,
  uri,
  url: uri,
  iri: uri,
  'uri-reference': uri,
  'iri-reference': uri,
  'uri-template': uri,
  uuid,
  guid: uuid,
  'json-pointer': pointer,
  'relative-json-pointer': `(0|[1-9]\\d{0,3})(#|${pointer})`,
  base64: base64,
  byte: base64,
};

const labelEndless = '[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?';
const hostEndless = `${labelEndless}(\\.${labelEndless})*`;
const atomEndless = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+";

/** The same formats without lengths. */
const endless: Readonly<Record<string, string>> = {
  email: `${atomEndless}(\\.${atomEndless})*@${labelEndless}(\\.${labelEndless})+`,
  hostname: hostEndless,
  uri: `[a-zA-Z][a-zA-Z0-9+.-]*://${hostEndless}(:[1-9]\\d{0,3})?([/?#]${segment}*)*`,
};

/** Formats that say what a text is for, not what it looks like. */
const freeFormats: readonly string[] = [
  'password',
  'binary',
  'text',
  'string',
  'textarea',
  'markdown',
  'html',
];

export function isFreeFormat(format: string): boolean {
  return freeFormats.includes(format);
}

/**
 * null for a format that is not known, or that no regular language has. `isJoined`: another pattern stands
 * beside it, which the short parts that keep a model from going on and on would only make larger.
 */
export function formatPattern(format: string, isJoined: boolean): Pattern | null {
  const table = isJoined && Object.hasOwn(endless, format) ? endless : patterns;
  const pattern = Object.hasOwn(table, format) ? table[format] : undefined;
  return pattern === undefined ? null : parsePattern(`^(${pattern})$`);
}
