/**
 * The line of every key in a TOML document.
 *
 * Problem: a fault found in the parsed value must name its line, and the parser keeps none. Design: a scanner
 * that walks the same grammar and notes where each key, table and array element begins. Limits: it is only
 * given documents that the parser has accepted, so it checks nothing; where it would be lost it skips a
 * character, so that it always ends.
 */
import { type KeyPath, pathId } from './key-path.ts';

/** Lines count from 1. The key is `pathId(path)`; array elements have their index as a path segment. */
export type TomlLines = ReadonlyMap<string, number>;

export function findTomlLines(toml: string): TomlLines {
  const scanner = new Scanner(toml);
  scanner.document();
  return scanner.lines;
}

class Scanner {
  readonly lines = new Map<string, number>();
  readonly #text: string;
  readonly #arrayTables = new Map<string, number>();
  #at = 0;
  #line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  document(): void {
    let table: KeyPath = [];
    for (;;) {
      this.#skipBlank();
      const char = this.#peek();
      if (char === '') return;
      if (char === '[') table = this.#header();
      else this.#pair(table);
    }
  }

  #header(): KeyPath {
    const line = this.#line;
    const isArray = this.#text.startsWith('[[', this.#at);
    this.#at += isArray ? 2 : 1;
    const names = this.#keyNames(']');
    this.#at += isArray ? 2 : 1;
    let path: (string | number)[] = [];
    names.forEach((name, depth) => {
      path = [...path, name];
      const count = this.#arrayTables.get(pathId(path));
      const isLast = depth === names.length - 1;
      if (isLast && isArray) {
        this.#arrayTables.set(pathId(path), (count ?? 0) + 1);
        this.#note(path, line);
        path = [...path, count ?? 0];
      } else if (count !== undefined) {
        path = [...path, count - 1];
      }
      this.#note(path, line);
    });
    return path;
  }

  #pair(table: KeyPath): void {
    const line = this.#line;
    const names = this.#keyNames('=');
    this.#at++;
    let path = table;
    for (const name of names) {
      path = [...path, name];
      this.#note(path, line);
    }
    this.#value(path);
  }

  #keyNames(end: string): string[] {
    const names: string[] = [];
    for (;;) {
      this.#skipSpaces();
      const char = this.#peek();
      if (char === '' || char === end) return names;
      if (char === '"' || char === "'") names.push(this.#string());
      else if (/[\w-]/.test(char)) names.push(this.#bare(/[\w-]/));
      else this.#at++;
    }
  }

  #value(path: KeyPath): void {
    this.#skipSpaces();
    const char = this.#peek();
    if (char === '"' || char === "'") this.#string();
    else if (char === '[') this.#array(path);
    else if (char === '{') this.#inlineTable(path);
    // A date may have a space before its time.
    else this.#bare(/[^,\]}\r\n#]/);
  }

  #array(path: KeyPath): void {
    this.#at++;
    for (let index = 0; ; index++) {
      this.#skipBlank(',');
      const char = this.#peek();
      if (char === '' || char === ']') break;
      const before = this.#at;
      this.#note([...path, index], this.#line);
      this.#value([...path, index]);
      if (this.#at === before) this.#at++;
    }
    this.#at++;
  }

  #inlineTable(path: KeyPath): void {
    this.#at++;
    for (;;) {
      this.#skipBlank(',');
      const char = this.#peek();
      if (char === '' || char === '}') break;
      this.#pair(path);
    }
    this.#at++;
  }

  /** The content of a string in any of the four quotings; escapes are decoded for keys of one line. */
  #string(): string {
    const quote = this.#peek();
    const triple = quote.repeat(3);
    const isMulti = this.#text.startsWith(triple, this.#at);
    const close = isMulti ? triple : quote;
    const start = this.#at + close.length;
    this.#at = start;
    while (this.#at < this.#text.length && !this.#text.startsWith(close, this.#at)) {
      if (this.#peek() === '\\' && quote === '"') this.#step();
      this.#step();
    }
    const raw = this.#text.slice(start, this.#at);
    this.#at += close.length;
    // """a"""" ends with a quote of its content.
    while (isMulti && this.#peek() === quote) this.#at++;
    return quote === '"' && !isMulti ? unescapeBasic(raw) : raw;
  }

  #bare(allowed: RegExp): string {
    const start = this.#at;
    while (this.#at < this.#text.length && allowed.test(this.#peek())) this.#at++;
    return this.#text.slice(start, this.#at);
  }

  #skipSpaces(): void {
    while (this.#peek() === ' ' || this.#peek() === '\t') this.#at++;
  }

  #skipBlank(also = ''): void {
    for (;;) {
      const char = this.#peek();
      if (char === '') return;
      if (char === '#') while (this.#at < this.#text.length && this.#peek() !== '\n') this.#at++;
      else if (/\s/.test(char) || char === '\uFEFF' || char === also) this.#step();
      else return;
    }
  }

  #step(): void {
    if (this.#peek() === '\n') this.#line++;
    this.#at++;
  }

  #peek(): string {
    return this.#text[this.#at] ?? '';
  }

  /** The first mention of a key is its line. */
  #note(path: KeyPath, line: number): void {
    const id = pathId(path);
    if (!this.lines.has(id)) this.lines.set(id, line);
  }
}

function unescapeBasic(raw: string): string {
  const simple: Readonly<Record<string, string>> = { b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', e: '\x1b' };
  return raw.replace(/\\(?:x(\w{2})|u(\w{4})|U(\w{8})|(.))/gs, (_, x, u4, u8, char) => {
    const hex: string | undefined = x ?? u4 ?? u8;
    return hex === undefined ? (simple[char] ?? char) : String.fromCodePoint(Number.parseInt(hex, 16));
  });
}
