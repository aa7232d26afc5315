/**
 * What of a request will be the same in the next one of its conversation: the name that the client gives it,
 * else the head of the prompt. Read from the client's body in any of the dialects; what is not there, or is
 * of a wrong type, is left out.
 */
import type { InnerTurn } from './inner/inner-request.ts';
import type { JsonObject } from './request-body.ts';

export interface PromptKey {
  /** `prompt_cache_key`, or the session in Anthropic's `metadata`; null = the client names none. */
  readonly session: string | null;
  /** A hash of instructions and first turn. */
  readonly head: string;
  /** Tokens that the head stands for, roughly. */
  readonly headTokens: number;
}

const headCharsMax = 4096;
const sessionCharsMax = 200;

export function promptKeyOf(body: JsonObject): PromptKey {
  const head = new Head();
  head.add(body.system ?? body.instructions);
  addTurns(head, body.messages ?? body.input ?? body.prompt);
  return { session: sessionOf(body), head: head.hash(), headTokens: Math.max(1, Math.ceil(head.chars / 4)) };
}

/** The same of a request that was read already; `named`: where the client may have named its session. */
export function promptKeyOfTurns(turns: readonly InnerTurn[], named: JsonObject = {}): PromptKey {
  return promptKeyOf({ ...named, messages: turns.map(({ role, parts }) => ({ role, content: parts })) });
}

function sessionOf({ prompt_cache_key: cacheKey, metadata }: JsonObject): string | null {
  const named = textOrNull(cacheKey);
  if (named !== null || !isObject(metadata)) return named;
  const user = textOrNull(metadata.user_id);
  return textOrNull(metadata.session_id) ?? (user === null ? null : sessionInUserId(user));
}

/** Claude Code sends `user_<hash>_account_<id>_session_<id>`, later versions JSON with `session_id`. */
function sessionInUserId(user: string): string | null {
  if (!user.startsWith('{')) return /_session_([\w-]{8,})/.exec(user)?.[1] ?? null;
  try {
    const parsed: unknown = JSON.parse(user);
    return isObject(parsed) ? textOrNull(parsed.session_id) : null;
  } catch {
    return null;
  }
}

/** All that stands before the first answer. */
function addTurns(head: Head, turns: unknown): void {
  for (const turn of Array.isArray(turns) ? turns : [turns]) {
    if (head.full) return;
    if (!isObject(turn)) {
      head.add(turn);
      continue;
    }
    if (turn.role === 'assistant') return;
    head.add(turn.content);
  }
}

/** Two FNV-1a hashes of 32 bits with different offsets over the first characters. */
class Head {
  chars = 0;
  #a = 0x811c9dc5;
  #b = 0x01000193;

  get full(): boolean {
    return this.chars >= headCharsMax;
  }

  /** A text, or parts of a message with texts. */
  add(content: unknown): void {
    if (typeof content === 'string') this.#text(content);
    if (!Array.isArray(content)) return;
    for (const part of content) if (isObject(part) && typeof part.text === 'string') this.#text(part.text);
  }

  hash(): string {
    return [this.#a, this.#b].map((half) => half.toString(16).padStart(8, '0')).join('');
  }

  #text(text: string): void {
    const length = Math.min(text.length, headCharsMax - this.chars);
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      this.#a = Math.imul(this.#a ^ code, 0x01000193) >>> 0;
      this.#b = Math.imul(this.#b ^ code, 0x01000193) >>> 0;
    }
    // where one text ends and the next begins
    this.#a = Math.imul(this.#a ^ 0x1f, 0x01000193) >>> 0;
    this.#b = Math.imul(this.#b ^ 0x2f, 0x01000193) >>> 0;
    this.chars += Math.max(0, length);
  }
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value.slice(0, sessionCharsMax) : null;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
