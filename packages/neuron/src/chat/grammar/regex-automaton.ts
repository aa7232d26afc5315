import type { CharSet } from './char-set.ts';
import { type Regex, RegexError } from './regex-parser.ts';
import type { RuleSet } from './rule-set.ts';

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
const rulesMax = 4000;

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

export function matches({ sets, follow, accepting }: Automaton, text: string): boolean {
  let states = new Set([0]);
  for (const char of text) {
    const code = char.codePointAt(0) as number;
    const next = new Set<number>();
    for (const state of states) {
      for (const target of follow[state] as readonly number[]) {
        if (sets[target]?.some(([from, to]) => from <= code && code <= to)) next.add(target);
      }
    }
    states = next;
  }
  return [...states].some((state) => accepting.has(state));
}

/**
 * Rules for the texts of `min` to `max` characters that the automaton accepts: one per state and length.
 * Errors: RegexError when they would be too many, or when no such text exists.
 */
export function toBoundedRules(
  { sets, follow, accepting }: Automaton,
  min: number,
  max: number | null,
  toBody: (set: CharSet) => string,
  rules: RuleSet,
): string {
  // Past `min` an unlimited length no longer counts.
  const lengthMax = max ?? min;
  const width = lengthMax + 1;
  if (sets.length * width > rulesMax) {
    throw new RegexError('is too large to be joined with a length; put the length into it, as in {1,20}');
  }
  const after = (length: number): number => (max === null ? Math.min(length + 1, lengthMax) : length + 1);
  const isEnd = (state: number, length: number): boolean => length >= min && accepting.has(state);
  const alive = findAlive({ sets, follow, accepting }, width, after, isEnd);
  if (!alive.has(0)) throw new RegexError('matches no text of the length asked for');
  const bodies = sets.map((set, state) => (state === 0 ? '' : toBody(set)));
  const names = new Map([...alive].map((place) => [place, rules.fresh('sized')]));
  const nameOf = (state: number, length: number): string => names.get(state * width + length) as string;
  for (const place of alive) {
    const [state, length] = [Math.floor(place / width), place % width];
    const next = after(length);
    const alternatives = (follow[state] as readonly number[])
      .filter((target) => next <= lengthMax && alive.has(target * width + next))
      .map((target) => `${bodies[target]} ${nameOf(target, next)}`);
    if (isEnd(state, length)) alternatives.push('""');
    rules.set(nameOf(state, length), alternatives.join(' | '));
  }
  return nameOf(0, 0);
}

/** Every place (state * width + length) from which an accepted text can still be reached. */
function findAlive(
  { sets, follow }: Automaton,
  width: number,
  after: (length: number) => number,
  isEnd: (state: number, length: number) => boolean,
): ReadonlySet<number> {
  const alive = new Set<number>();
  const isGood = (state: number, length: number): boolean => {
    const next = after(length);
    if (isEnd(state, length)) return true;
    return next < width && (follow[state] as readonly number[]).some((to) => alive.has(to * width + next));
  };
  for (let before = -1; alive.size > before; ) {
    before = alive.size;
    for (let length = width - 1; length >= 0; length--) {
      for (let state = 0; state < sets.length; state++) {
        if (isGood(state, length)) alive.add(state * width + length);
      }
    }
  }
  return alive;
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
      throw new RegexError('has an anchor in the middle');
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
