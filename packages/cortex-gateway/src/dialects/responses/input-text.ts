/**
 * The input of a custom tool out of the arguments `{"input":"..."}` that a model writes, piece by piece.
 *
 * Problem: clients of a custom tool want its bare text as it comes, and what has been sent cannot be taken
 * back.
 * Design: characters go out while the arguments are that object and nothing else so far. Where they turn out
 * to be something else, nothing has gone out, and the arguments are the input as they are.
 */
const head = /^\s*\{\s*"input"\s*:\s*"/;
const escapes: Readonly<Record<string, string>> = {
  ...{ n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', '"': '"', '\\': '\\', '/': '/' },
};

const replacement = '\ufffd';

export class InputText {
  readonly #pieces: string[] = [];
  /** What came and was not read: at first all of it, then the rest behind the last whole character. */
  #pending = '';
  #state: 'before' | 'inside' | 'behind' = 'before';
  #sent = '';

  /** The arguments so far are one JSON value. */
  get whole(): boolean {
    try {
      JSON.parse(this.#pieces.join(''));
      return true;
    } catch {
      return false;
    }
  }

  /** The text that this piece brought. */
  push(piece: string): string {
    this.#pieces.push(piece);
    if (this.#state === 'behind') return '';
    this.#pending += piece;
    if (this.#state === 'before') {
      const match = head.exec(this.#pending);
      if (match === null) return '';
      this.#state = 'inside';
      this.#pending = this.#pending.slice(match[0].length);
    }
    const text = this.#take();
    this.#sent += text;
    return text;
  }

  /** What was not sent of the input. */
  end(): string {
    const raw = this.#pieces.join('');
    const input = inputOf(raw);
    if (this.#state === 'before') return input ?? raw;
    return input?.startsWith(this.#sent) === true ? input.slice(this.#sent.length) : '';
  }

  #take(): string {
    const pending = this.#pending;
    let text = '';
    let at = 0;
    while (at < pending.length) {
      if (pending[at] === '"') {
        this.#state = 'behind';
        break;
      }
      const read = readCharacter(pending, at);
      if (read === null) break;
      text += read.text;
      at += read.length;
    }
    this.#pending = pending.slice(at);
    return text;
  }
}

/** The character at `at` and how much of the JSON text it takes; null while it is not whole. */
function readCharacter(json: string, at: number): { readonly text: string; readonly length: number } | null {
  const char = json[at] as string;
  if (char !== '\\') return { text: char, length: 1 };
  const name = json[at + 1];
  if (name === undefined) return null;
  if (name !== 'u') return { text: escapes[name] ?? name, length: 2 };
  const unit = unitAt(json, at);
  if (unit === null) return null;
  // half of a pair is no character, and strict readers refuse it
  if (unit < 0xd800 || unit > 0xdfff) return { text: String.fromCharCode(unit), length: 6 };
  if (unit > 0xdbff) return { text: replacement, length: 6 };
  if (json.length < at + 12 && '\\u'.startsWith(json.slice(at + 6, at + 8))) return null;
  const second = json.startsWith('\\u', at + 6) ? unitAt(json, at + 6) : null;
  if (second === null || second < 0xdc00 || second > 0xdfff) return { text: replacement, length: 6 };
  return { text: String.fromCharCode(unit, second), length: 12 };
}

function unitAt(json: string, at: number): number | null {
  const hex = json.slice(at + 2, at + 6);
  return hex.length < 4 ? null : Number.parseInt(hex, 16) || 0;
}

function inputOf(raw: string): string | null {
  try {
    const value: unknown = JSON.parse(raw);
    const input = typeof value === 'object' && value !== null && 'input' in value ? value.input : null;
    return typeof input === 'string' ? input.replace(/\p{Surrogate}/gu, replacement) : null;
  } catch {
    return null;
  }
}
