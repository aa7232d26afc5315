/**
 * Tool calls in the Hermes form, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, out
 * of a text that
 * arrives in pieces. Text that could be the beginning of a marker is held back until it is decided. What is
 * between the markers and is no call passes as the text it is: nothing a model said is lost.
 */
export type AnswerEvent =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'call'; readonly name: string; readonly argumentsJson: string };

const open = '<tool_call>';
const close = '</tool_call>';

export class ToolCallParser {
  #held = '';
  #inside = false;
  /** Blank text is kept back until it is known whether a call follows it. */
  #blank = '';
  #callSeen = false;

  push(text: string): AnswerEvent[] {
    this.#held += text;
    const events: AnswerEvent[] = [];
    while (this.#step(events));
    return events;
  }

  /** What is still held back, at the end of the answer. */
  end(): AnswerEvent[] {
    const events: AnswerEvent[] = [];
    if (this.#inside) {
      const call = readCall(this.#held);
      if (call !== null) events.push(call);
      else events.push({ kind: 'text', text: this.#blank + open + this.#held });
    } else {
      const rest = this.#blank + this.#held;
      if (rest !== '' && !(this.#callSeen && rest.trim() === '')) events.push({ kind: 'text', text: rest });
    }
    this.#held = '';
    this.#blank = '';
    this.#inside = false;
    return events;
  }

  #step(events: AnswerEvent[]): boolean {
    if (this.#inside) {
      const at = this.#held.indexOf(close);
      if (at === -1) return false;
      const body = this.#held.slice(0, at);
      this.#held = this.#held.slice(at + close.length);
      this.#inside = false;
      const call = readCall(body);
      if (call !== null) {
        events.push(call);
        this.#callSeen = true;
      } else {
        events.push({ kind: 'text', text: this.#blank + open + body + close });
      }
      this.#blank = '';
      return true;
    }
    const at = this.#held.indexOf(open);
    if (at !== -1) {
      this.#text(this.#held.slice(0, at), events);
      this.#held = this.#held.slice(at + open.length);
      this.#inside = true;
      return true;
    }
    const keep = partialMarker(this.#held);
    const ready = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(this.#held.length - keep);
    this.#text(ready, events);
    return false;
  }

  #text(text: string, events: AnswerEvent[]): void {
    const whole = this.#blank + text;
    const solid = whole.trimEnd().length;
    this.#blank = whole.slice(solid);
    if (solid > 0) events.push({ kind: 'text', text: whole.slice(0, solid) });
  }
}

/** Length of the longest end of `text` that begins a marker. */
function partialMarker(text: string): number {
  for (let length = Math.min(open.length - 1, text.length); length > 0; length--) {
    if (open.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}

function readCall(body: string): AnswerEvent | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.trim());
  } catch {
    return null;
  }
  if (typeof parsed !== 'object' || parsed === null) return null;
  const { name, arguments: given = {} } = parsed as { name?: unknown; arguments?: unknown };
  if (typeof name !== 'string' || name === '') return null;
  return { kind: 'call', name, argumentsJson: typeof given === 'string' ? given : JSON.stringify(given) };
}
