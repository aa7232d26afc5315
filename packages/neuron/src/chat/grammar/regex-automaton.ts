import type { CharSet } from './char-set.ts';
import { type Regex, RegexError } from './regex-parser.ts';

/**
 * Glushkov's automaton: one state per character that the pattern can take, no empty moves. State 0 is the
 * start; `sets[i]` is what state i takes to be entered.
 */
export interface Automaton {
  readonly sets: readonly CharSet[];
  readonly follow: readonly (readonly number[])[];
  readonly accepting: ReadonlySet<number>;
}

const statesMax = 2000;
const movesMax = 200_000;

interface Part {
  readonly isEmptyToo: boolean;
  readonly first: readonly number[];
  readonly last: readonly number[];
}

const nothing: Part = { isEmptyToo: true, first: [], last: [] };

interface Draft {
  readonly sets: CharSet[];
  readonly follow: Set<number>[];
  moves: number;
}

/** Errors: RegexError for a pattern too large, or with an anchor in the middle. */
export function automatonOf(regex: Regex): Automaton {
  const draft: Draft = { sets: [[]], follow: [new Set()], moves: 0 };
  const whole = build(draft, regex);
  for (const state of whole.first) draft.follow[0]?.add(state);
  return {
    sets: draft.sets,
    follow: draft.follow.map((states) => [...states]),
    accepting: new Set(whole.isEmptyToo ? [0, ...whole.last] : whole.last),
  };
}

/** Moves that may still be looked at. */
export interface Effort {
  left: number;
}

/** States after a character, ascending. Errors: RegexError when the effort is spent. */
export function step(
  { sets, follow }: Automaton,
  states: readonly number[],
  code: number,
  effort: Effort,
): readonly number[] {
  const next = new Set<number>();
  for (const state of states) {
    const targets = follow[state] as readonly number[];
    effort.left -= targets.length;
    if (effort.left < 0) throw new RegexError('takes too long to work out; write it with less choice');
    for (const target of targets) {
      if (sets[target]?.some(([from, to]) => from <= code && code <= to)) next.add(target);
    }
  }
  return [...next].sort((a, b) => a - b);
}

export function matches(automaton: Automaton, text: string, effort: Effort): boolean {
  let states: readonly number[] = [0];
  for (const char of text) {
    if (states.length === 0) return false;
    states = step(automaton, states, char.codePointAt(0) as number, effort);
  }
  return states.some((state) => automaton.accepting.has(state));
}

function build(draft: Draft, regex: Regex): Part {
  if (++draft.moves > movesMax) throw new RegexError('is too large');
  switch (regex.kind) {
    case 'chars': {
      if (draft.sets.length >= statesMax) throw new RegexError(`has more than ${statesMax} characters`);
      const state = draft.sets.push(regex.set) - 1;
      draft.follow.push(new Set());
      return { isEmptyToo: false, first: [state], last: [state] };
    }
    case 'sequence':
      return regex.items.reduce((left, item) => join(draft, left, build(draft, item)), nothing);
    case 'choice': {
      const parts = regex.options.map((option) => build(draft, option));
      return {
        isEmptyToo: parts.some((part) => part.isEmptyToo),
        first: parts.flatMap((part) => part.first),
        last: parts.flatMap((part) => part.last),
      };
    }
    case 'repeat':
      return buildRepeat(draft, regex.item, regex.min, regex.max);
    default:
      throw new RegexError('has an anchor or a lookahead in the middle');
  }
}

function buildRepeat(draft: Draft, item: Regex, min: number, max: number | null): Part {
  let whole = nothing;
  const copies = max ?? Math.max(min, 1);
  for (let copy = 0; copy < copies; copy++) {
    const part = build(draft, item);
    if (max === null && copy === copies - 1) link(draft, part.last, part.first);
    whole = join(draft, whole, copy < min ? part : { ...part, isEmptyToo: true });
  }
  return whole;
}

function join(draft: Draft, left: Part, right: Part): Part {
  link(draft, left.last, right.first);
  return {
    isEmptyToo: left.isEmptyToo && right.isEmptyToo,
    first: left.isEmptyToo ? [...left.first, ...right.first] : left.first,
    last: right.isEmptyToo ? [...left.last, ...right.last] : right.last,
  };
}

function link(draft: Draft, from: readonly number[], to: readonly number[]): void {
  draft.moves += from.length * to.length;
  if (draft.moves > movesMax) throw new RegexError('is too large');
  for (const state of from) for (const target of to) draft.follow[state]?.add(target);
}
