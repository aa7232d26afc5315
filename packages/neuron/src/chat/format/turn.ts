/**
 * One turn of a model while it is read: what was recognised so far goes out through it, in order.
 *
 * Blanks around markers belong to the format and not to the text: those at the end of a piece are held until
 * it is known what follows. Before a marker they are dropped, before text and at the end of a turn they go
 * out.
 */
import type { ChatEvent } from 'cortex-core/wire/chat-events';
import type { IdStyle } from './chat-format.ts';
import { Cursor } from './cursor.ts';
import type { OfferedTool, OfferedTools } from './offered-tools.ts';

export interface TurnOptions {
  readonly tools: OfferedTools;
  readonly idStyle: IdStyle;
  /** More than one call a turn. */
  readonly parallel: boolean;
  /** At least 24 characters of [a-z0-9], others each time. */
  readonly randomText: () => string;
}

/** Thrown when the rest of the turn does not matter: a second call where one is allowed. */
export const turnOver = Symbol('the turn is over');

type TextKind = 'content' | 'reasoning';

export class Turn {
  readonly cursor = new Cursor();
  readonly tools: OfferedTools;
  readonly #options: TurnOptions;
  #events: ChatEvent[] = [];
  #kind: TextKind = 'content';
  /** Blanks that were read and not yet given out. */
  #blank = '';
  #dropsBlank = false;
  #isFresh = true;
  #callCount = 0;
  #open: number | null = null;
  readonly #ids = new Set<string>();

  constructor(options: TurnOptions) {
    this.#options = options;
    this.tools = options.tools;
  }

  get callCount(): number {
    return this.#callCount;
  }

  get isCallOpen(): boolean {
    return this.#open !== null;
  }

  get isReasoning(): boolean {
    return this.#kind === 'reasoning';
  }

  /** Whether no text was said since the turn, or since the last reasoning or call. */
  get isFresh(): boolean {
    return this.#isFresh;
  }

  /** The events since the last time. */
  takeEvents(): ChatEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  text(kind: TextKind, text: string): void {
    if (text === '') return;
    if (kind !== this.#kind) this.#startText(kind);
    const solid = solidLength(text);
    if (solid === 0) {
      if (!this.#dropsBlank) this.#blank += text;
      return;
    }
    const from = this.#dropsBlank ? leadLength(text) : 0;
    this.#dropsBlank = false;
    this.#isFresh = false;
    this.#emitText(kind, this.#blank + text.slice(from, solid));
    this.#blank = text.slice(solid);
  }

  /** A marker was read: blanks on both sides of it are not text. */
  marker(kind: TextKind): void {
    this.#startText(kind);
  }

  /** Commits to a call: what was held is not text any more. */
  startCall(tool: OfferedTool, ownId?: string): void {
    if (!this.#options.parallel && this.#callCount > 0) throw turnOver;
    this.cursor.release();
    this.#startText('content');
    const index = this.#callCount++;
    this.#open = index;
    const id = this.#toId(tool.name, index, ownId);
    this.#events.push({ kind: 'call_start', index, id, name: tool.name });
  }

  callArguments = (text: string): void => {
    if (text === '' || this.#open === null) return;
    const last = this.#events.at(-1);
    if (last?.kind === 'call_arguments') {
      this.#events[this.#events.length - 1] = { ...last, text: last.text + text };
    } else this.#events.push({ kind: 'call_arguments', index: this.#open, text });
  };

  endCall(): void {
    if (this.#open === null) return;
    this.#events.push({ kind: 'call_end', index: this.#open });
    this.#open = null;
    // What follows may still turn out to be no call.
    this.cursor.hold();
  }

  /** The turn ended. */
  finish(): void {
    this.endCall();
    if (this.#blank !== '') this.#emitText(this.#kind, this.#blank);
    this.#blank = '';
  }

  #startText(kind: TextKind): void {
    this.#kind = kind;
    this.#blank = '';
    this.#dropsBlank = true;
    this.#isFresh = true;
  }

  #emitText(kind: TextKind, text: string): void {
    const last = this.#events.at(-1);
    if (last?.kind === kind) this.#events[this.#events.length - 1] = { kind, text: last.text + text };
    else this.#events.push({ kind, text });
  }

  #toId(name: string, index: number, own: string | undefined): string {
    const { idStyle, randomText } = this.#options;
    let id = own?.trim() ?? '';
    // A bare number counts within the turn (Command-A); with the next turn it would come again.
    if (id === '' || /^\d{1,4}$/.test(id) || this.#ids.has(id)) {
      if (idStyle === 'kimi') id = `functions.${name}:${index}`;
      else if (idStyle === 'nine') id = randomText().slice(0, 9);
      else id = `call_${randomText().slice(0, 24)}`;
    }
    this.#ids.add(id);
    return id;
  }
}

/** Length without the blanks at the end. */
function solidLength(text: string): number {
  let end = text.length;
  while (end > 0 && isBlankCode(text.charCodeAt(end - 1))) end--;
  return end;
}

function leadLength(text: string): number {
  let at = 0;
  while (at < text.length && isBlankCode(text.charCodeAt(at))) at++;
  return at;
}

function isBlankCode(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}
