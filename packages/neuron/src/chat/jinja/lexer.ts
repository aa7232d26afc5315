/**
 * Template text -> segments: plain text, `{{ }}` and `{% %}` cut into tokens. Whitespace as chat templates
 * are written for (transformers' `trim_blocks` and `lstrip_blocks`): the line break after a block tag and the
 * blanks before one on its own line are dropped; `-` strips all, `+` none. One final line break is dropped.
 */
import { JinjaError } from './syntax.ts';

export interface Token {
  readonly type: 'name' | 'string' | 'number' | 'op';
  /** The decoded text for strings. */
  readonly text: string;
  readonly line: number;
}

export type Segment =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'output' | 'block'; readonly tokens: readonly Token[]; readonly line: number };

const nameAt = /[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*/y;
const numberAt = /\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const stringAt = /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y;
const operatorAt = /\*\*|\/\/|==|!=|>=|<=|[-+*/%~[\](){}<>=.:|,]/y;
const blankAt = /\s+/y;
const endRaw = /\{%([-+]?)\s*endraw\s*([-+]?)%\}/g;

export function toSegments(given: string): Segment[] {
  return new Lexer(given.replace(/\r\n?/g, '\n').replace(/\n$/, '')).run();
}

class Lexer {
  readonly #source: string;
  readonly #segments: Segment[] = [];
  #at = 0;
  #line = 1;
  /** Whether the text that follows begins a line, as far as `lstrip_blocks` is concerned. */
  #lineStart = true;

  constructor(source: string) {
    this.#source = source;
  }

  run(): Segment[] {
    while (this.#at < this.#source.length) {
      const open = this.#findOpen(this.#at);
      if (open === -1) {
        this.#text(this.#source.slice(this.#at));
        break;
      }
      const kind = this.#source[open + 1] ?? '';
      const sign = this.#source[open + 2] ?? '';
      this.#text(this.#beforeTag(this.#source.slice(this.#at, open), kind, sign));
      this.#moveTo(open + (sign === '-' || sign === '+' ? 3 : 2));
      if (kind === '#') this.#comment();
      else this.#tag(kind === '{' ? 'output' : 'block');
    }
    return this.#segments;
  }

  #findOpen(from: number): number {
    for (let at = this.#source.indexOf('{', from); at !== -1; at = this.#source.indexOf('{', at + 1)) {
      const next = this.#source[at + 1];
      if (next === '{' || next === '%' || next === '#') return at;
    }
    return -1;
  }

  #text(text: string): void {
    if (text !== '') this.#segments.push({ type: 'text', text });
  }

  #beforeTag(text: string, kind: string, sign: string): string {
    if (sign === '-') return text.trimEnd();
    if (sign === '+' || kind === '{') return text;
    const lineAt = text.lastIndexOf('\n') + 1;
    if (lineAt === 0 && !this.#lineStart) return text;
    return /^[^\S\n]*$/.test(text.slice(lineAt)) ? text.slice(0, lineAt) : text;
  }

  #comment(): void {
    const end = this.#source.indexOf('#}', this.#at);
    if (end === -1) throw new JinjaError('a comment is not closed with #}', this.#line);
    const sign = this.#source[end - 1];
    this.#moveTo(end + 2);
    this.#afterTag(end - 1 >= 0 && (sign === '-' || sign === '+') ? sign : '', true);
  }

  #tag(type: 'output' | 'block'): void {
    const line = this.#line;
    const close = type === 'output' ? '}}' : '%}';
    const tokens: Token[] = [];
    let depth = 0;
    for (;;) {
      this.#skipBlank();
      if (this.#at >= this.#source.length) throw new JinjaError(`a tag is not closed with ${close}`, line);
      const sign = this.#source[this.#at];
      const signed = (sign === '-' || sign === '+') && this.#source.startsWith(close, this.#at + 1);
      if (depth === 0 && (signed || this.#source.startsWith(close, this.#at))) {
        this.#moveTo(this.#at + (signed ? 3 : 2));
        const isRaw = type === 'block' && tokens.length === 1 && tokens[0]?.text === 'raw';
        if (!isRaw) this.#segments.push({ type, tokens, line });
        this.#afterTag(signed ? (sign as string) : '', type === 'block');
        if (isRaw) this.#raw();
        return;
      }
      const token = this.#token();
      if (token.type === 'op') {
        if ('([{'.includes(token.text)) depth++;
        else if (')]}'.includes(token.text)) depth--;
      }
      tokens.push(token);
    }
  }

  #token(): Token {
    const line = this.#line;
    const name = this.#match(nameAt);
    if (name !== null) return { type: 'name', text: name, line };
    const number = this.#match(numberAt);
    if (number !== null) return { type: 'number', text: number.replaceAll('_', ''), line };
    const quoted = this.#match(stringAt);
    if (quoted !== null) return { type: 'string', text: unescapeText(quoted.slice(1, -1)), line };
    const operator = this.#match(operatorAt);
    if (operator !== null) return { type: 'op', text: operator, line };
    throw new JinjaError(`unexpected character ${JSON.stringify(this.#source[this.#at])}`, line);
  }

  #raw(): void {
    endRaw.lastIndex = this.#at;
    const match = endRaw.exec(this.#source);
    if (match === null) throw new JinjaError('a raw block is not closed with endraw', this.#line);
    this.#text(this.#beforeTag(this.#source.slice(this.#at, match.index), '%', match[1] ?? ''));
    this.#moveTo(match.index + match[0].length);
    this.#afterTag(match[2] ?? '', true);
  }

  #afterTag(sign: string, isBlock: boolean): void {
    this.#lineStart = false;
    if (sign === '-') this.#skipBlank();
    else if (isBlock && sign !== '+' && this.#source[this.#at] === '\n') {
      this.#moveTo(this.#at + 1);
      this.#lineStart = true;
    }
  }

  #skipBlank(): void {
    this.#match(blankAt);
  }

  #match(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#source)?.[0];
    if (found === undefined) return null;
    this.#moveTo(this.#at + found.length);
    return found;
  }

  #moveTo(at: number): void {
    for (let i = this.#at; i < at; i++) if (this.#source.charCodeAt(i) === 10) this.#line++;
    this.#at = at;
  }
}

const escapes: ReadonlyMap<string, string> = new Map([
  ['n', '\n'],
  ['t', '\t'],
  ['r', '\r'],
  ['b', '\b'],
  ['f', '\f'],
  ['v', '\v'],
  ['a', '\x07'],
  ['0', '\0'],
  ['\\', '\\'],
  ["'", "'"],
  ['"', '"'],
  ['\n', ''],
]);

/** As Python reads a string; what it does not know keeps its backslash. */
function unescapeText(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([\s\S]))/g,
    (whole, x: string | undefined, u: string | undefined, long: string | undefined, char: string) => {
      const hex = x ?? u ?? long;
      if (hex === undefined) return escapes.get(char) ?? whole;
      const code = Number.parseInt(hex, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    },
  );
}
