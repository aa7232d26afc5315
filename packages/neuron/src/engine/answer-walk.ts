/**
 * Where an answer stands between its reasoning block and its grammar, and where a token leads from there.
 *
 *     opening     the block may begin here, or the answer does
 *     reasoning   anything, until the block's end appears, or a call that ends the block
 *     gap         a few blanks between the block and what the grammar rules
 *     answer      free | waiting for a trigger | enforced
 *
 * A place is a value, so that asking whether a token may come and taking it in are the same function. Tags
 * and triggers are found in the text, wherever tokens cut it; text is kept as UTF-8 bytes, one char each,
 * since a token may end inside a character.
 */
import type { GrammarSpec, ReasoningSpec } from 'cortex-core/wire/inference';
import type { CompiledGrammar } from './grammar/compiled-grammar.ts';
import type { GrammarState } from './grammar/grammar-machine.ts';

/** Where the text after the reasoning stands. */
export type Inner =
  | { readonly kind: 'free' }
  | { readonly kind: 'waiting'; readonly tail: string }
  | { readonly kind: 'enforced'; readonly state: GrammarState };

export type Position =
  /** `inner` is null when what was seen can only be the beginning of the block. */
  | { readonly phase: 'opening'; readonly seen: string; readonly inner: Inner | null }
  | { readonly phase: 'reasoning'; readonly tail: string; readonly tokens: number }
  | { readonly phase: 'gap'; readonly blanks: number }
  | { readonly phase: 'answer'; readonly inner: Inner };

export interface Walk {
  readonly grammar: CompiledGrammar | null;
  readonly reasoning: ReasoningSpec | null;
  /** The block's tags; empty without one. */
  readonly start: string;
  readonly end: string;
  /** Texts that end the block too, and belong to the answer. */
  readonly endsAt: readonly string[];
  readonly triggerTexts: readonly string[];
  /** Where the text after the reasoning begins. */
  readonly first: Inner;
}

/** The new text of a token: all of it when `isWhole`. */
interface Read {
  readonly token: number;
  readonly text: string;
  readonly isWhole: boolean;
}

/** Blanks between a reasoning block and the grammar's text. */
const blanksMax = 8;
const leadingBlanks = /^[ \t\r\n]+/;

export function createWalk(
  grammar: CompiledGrammar | null,
  lazy: GrammarSpec['lazy'],
  reasoning: ReasoningSpec | null,
): Walk {
  const triggers = lazy?.triggers ?? [];
  return {
    grammar,
    reasoning,
    start: toByteText(reasoning?.start ?? ''),
    end: toByteText(reasoning?.end ?? ''),
    endsAt: (reasoning?.endsAt ?? []).map(toByteText),
    triggerTexts: triggers.map(toByteText),
    first: firstInner(grammar, lazy),
  };
}

function firstInner(grammar: CompiledGrammar | null, lazy: GrammarSpec['lazy']): Inner {
  if (grammar === null) return { kind: 'free' };
  if (lazy !== undefined) return { kind: 'waiting', tail: '' };
  return { kind: 'enforced', state: grammar.machine.start };
}

export function startOf({ reasoning, first }: Walk): Position {
  if (reasoning === null) return { phase: 'answer', inner: first };
  if (reasoning.isOpen) return { phase: 'reasoning', tail: '', tokens: 0 };
  return { phase: 'opening', seen: '', inner: first };
}

/** null: the token is not allowed. End-of-generation tokens are no text and not asked about. */
export function afterToken(
  walk: Walk,
  position: Position,
  token: number,
  bytes: Uint8Array,
): Position | null {
  const read: Read = { token, text: String.fromCharCode(...bytes), isWhole: true };
  switch (position.phase) {
    case 'opening':
      return afterOpening(walk, position.seen, position.inner, read);
    case 'reasoning':
      return afterReasoning(walk, position.tail, position.tokens + 1, read);
    case 'gap':
      return afterGap(walk, position.blanks, read);
    case 'answer':
      return toAnswer(afterInner(walk, position.inner, read));
  }
}

/** Whether the text so far ends in a beginning of what ends the block. */
export function isEndBegun({ end, endsAt }: Walk, tail: string): boolean {
  return [end, ...endsAt].some((text) => {
    for (let length = Math.min(text.length - 1, tail.length); length > 0; length--) {
      if (text.startsWith(tail.slice(tail.length - length))) return true;
    }
    return false;
  });
}

function afterOpening(walk: Walk, seen: string, inner: Inner | null, read: Read): Position | null {
  const { start, first } = walk;
  const whole = seen + read.text;
  const solid = whole.replace(leadingBlanks, '');
  if (solid.startsWith(start)) {
    return afterReasoning(walk, '', 0, { ...read, text: solid.slice(start.length), isWhole: false });
  }
  // A grammar does not see the blanks before its text; what only waits or is free sees everything.
  const isBlankSoFar = seen.replace(leadingBlanks, '') === '';
  const text = isBlankSoFar && first.kind === 'enforced' ? solid : read.text;
  const rest = { ...read, text, isWhole: text.length === read.text.length };
  const next = inner === null || text === '' ? inner : afterInner(walk, inner, rest);
  const isPossible = start.startsWith(solid) && whole.length - solid.length <= blanksMax;
  return isPossible ? { phase: 'opening', seen: whole, inner: next } : toAnswer(next);
}

function afterReasoning(walk: Walk, tail: string, tokens: number, read: Read): Position | null {
  const { end, endsAt } = walk;
  const whole = tail + read.text;
  const at = whole.indexOf(end);
  const opener = firstPlace(whole, endsAt);
  if (opener >= 0 && (at < 0 || opener < at)) {
    // The block ended before this text, which the answer begins with.
    const isWhole = read.isWhole && opener === tail.length;
    return toAnswer(afterInner(walk, walk.first, { ...read, text: whole.slice(opener), isWhole }));
  }
  if (at < 0) {
    const longest = Math.max(end.length, ...endsAt.map((text) => text.length)) - 1;
    return { phase: 'reasoning', tail: longest > 0 ? whole.slice(-longest) : '', tokens };
  }
  const text = whole.slice(at + end.length);
  return text === '' ? { phase: 'gap', blanks: 0 } : afterGap(walk, 0, { ...read, text, isWhole: false });
}

/** Where the first of the texts begins; -1 when there is none. */
function firstPlace(whole: string, texts: readonly string[]): number {
  const places = texts.map((text) => whole.indexOf(text)).filter((place) => place >= 0);
  return places.length === 0 ? -1 : Math.min(...places);
}

function afterGap(walk: Walk, blanks: number, read: Read): Position | null {
  if (walk.first.kind !== 'enforced') return toAnswer(afterInner(walk, walk.first, read));
  const text = read.text.replace(leadingBlanks, '');
  const count = blanks + read.text.length - text.length;
  if (count > blanksMax) return null;
  if (text === '') return { phase: 'gap', blanks: count };
  const isWhole = read.isWhole && text.length === read.text.length;
  return toAnswer(afterInner(walk, walk.first, { ...read, text, isWhole }));
}

function toAnswer(inner: Inner | null): Position | null {
  return inner === null ? null : { phase: 'answer', inner };
}

function afterInner(walk: Walk, inner: Inner, read: Read): Inner | null {
  if (inner.kind === 'free' || walk.grammar === null) return inner;
  if (inner.kind === 'enforced') return enforce(walk.grammar, inner.state, read);
  const { start } = walk.grammar.machine;
  const whole = inner.tail + read.text;
  const at = firstPlace(whole, walk.triggerTexts);
  if (at >= 0) {
    const isWhole = read.isWhole && at === inner.tail.length;
    return enforce(walk.grammar, start, { ...read, text: whole.slice(at), isWhole });
  }
  const longest = Math.max(0, ...walk.triggerTexts.map((trigger) => trigger.length - 1));
  return { kind: 'waiting', tail: longest === 0 ? '' : whole.slice(-longest) };
}

function enforce({ machine }: CompiledGrammar, state: GrammarState, read: Read): Inner | null {
  const bytes = Uint8Array.from(read.text, (char) => char.charCodeAt(0));
  let next: GrammarState | null = state;
  if (read.isWhole) next = machine.stepToken(state, read.token, bytes);
  else
    for (let at = 0; at < bytes.length && next !== null; at++) next = machine.step(next, bytes[at] as number);
  return next === null ? null : { kind: 'enforced', state: next };
}

/** UTF-8 bytes as chars of 0 to 255. */
function toByteText(text: string): string {
  return String.fromCharCode(...new TextEncoder().encode(text));
}
