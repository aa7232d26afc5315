/**
 * Reads bytes by a grammar. Where it may be in its program is a set of places (state, stack of returns); such
 * a set is a GrammarState. Sets met again are the same object and remember where each byte led, so that the
 * machine becomes a table as it runs (a lazily built automaton): the second time a byte costs one look-up.
 *
 * Limits: a set has at most `placesMax` places, and one token may cost `effortMax` of them; after `statesMax`
 * sets, or `tablePlacesMax` places in them, the table is begun anew, and what running requests hold goes
 * with them.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { Reach } from './check-program.ts';
import { endState, type GrammarProgram, type ProgramState } from './grammar-program.ts';
import { hasText } from './token-trie.ts';

/** Where to go on after a rule: hash-consed, so that equal stacks are one object. */
interface Frame {
  readonly id: number;
  readonly target: number;
  readonly below: Frame | null;
}

interface Place {
  readonly state: number;
  readonly stack: Frame | null;
}

export interface GrammarState {
  /** Whether the text so far is whole. */
  readonly isEnd: boolean;
  /** Places that read a byte next. */
  readonly readers: readonly Place[];
  /** Places that take a whole token. */
  readonly takers: readonly Place[];
  /** Byte class -> the state after it; null = not allowed, absent = not computed yet. */
  readonly next: (GrammarState | null | undefined)[];
}

export interface GrammarMachine {
  readonly start: GrammarState;
  /** Begins the count of what may be computed for one token of one answer. */
  beginToken(): void;
  /** The state after a byte, null when the grammar does not allow it. */
  step(state: GrammarState, byte: number): GrammarState | null;
  /** The state after a whole token: what its bytes lead to, and what takes it by its number. */
  stepToken(state: GrammarState, token: number, bytes: Uint8Array): GrammarState | null;
  /** Whether the state takes tokens by number, and this one. */
  takes(state: GrammarState, token: number): boolean;
  /** How many different bytes may come next, 256 at most. */
  firstBytes(state: GrammarState): number;
}

/** Work on new states since `beginToken`. */
interface Effort {
  places: number;
}

const placesMax = 20_000;
const statesMax = 10_000;
const tablePlacesMax = 500_000;
/** Looking at a reader costs about so much less than making a place. */
const readersPerPlace = 16;
/** A fraction of a second; ordinary grammars need thousands. */
const effortMax = 400_000;

export function createGrammarMachine(program: GrammarProgram, reach: Reach): GrammarMachine {
  const { states } = program;
  const classes = byteClasses(program);
  const effort: Effort = { places: 0 };
  const close = createClosure(program, reach, effort, () => {
    // Everything else hangs on the start.
    start.next.length = 0;
  });
  const start: GrammarState = openStart(() => close([{ state: program.entries[0] as number, stack: null }]));

  const follow = (state: GrammarState, byte: number): GrammarState | null => {
    const targets: Place[] = [];
    effort.places += state.readers.length / readersPerPlace;
    for (const { state: number, stack } of state.readers) {
      const { edges } = states[number] as Extract<ProgramState, { kind: 'bytes' }>;
      for (const edge of edges) {
        if (edge.from <= byte && byte <= edge.to) targets.push({ state: edge.target, stack });
      }
    }
    return targets.length === 0 ? null : close(targets);
  };
  const step = (state: GrammarState, byte: number): GrammarState | null => {
    const index = classes[byte] as number;
    let next = state.next[index];
    if (next === undefined) {
      next = follow(state, byte);
      state.next[index] = next;
    }
    return next;
  };
  const takersOf = (state: GrammarState, token: number): Place[] =>
    state.takers.flatMap(({ state: number, stack }) => {
      const taker = states[number] as Extract<ProgramState, { kind: 'token' }>;
      return (taker.token === token) === taker.isInverted ? [] : [{ state: taker.target, stack }];
    });
  return {
    start,
    beginToken() {
      effort.places = 0;
    },
    step,
    stepToken(state, token, bytes) {
      let after: GrammarState | null = hasText(bytes) ? state : null;
      for (let at = 0; at < bytes.length && after !== null; at++) after = step(after, bytes[at] as number);
      const taken = takersOf(state, token);
      return taken.length === 0 ? after : close([...taken, ...placesOf(after)]);
    },
    takes: (state, token) => takersOf(state, token).length > 0,
    firstBytes(state) {
      let count = 0;
      for (let byte = 0; byte < 256; byte++) if (step(state, byte) !== null) count++;
      return count;
    },
  };
}

/** The first state; here a grammar that can be read in too many ways is the request's fault at once. */
function openStart(open: () => GrammarState | null): GrammarState {
  try {
    const start = open();
    if (start !== null) return start;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    throw new AppError('invalid_request', error.message, { param: 'grammar' });
  }
  throw new AppError('invalid_request', 'the grammar allows no text', { param: 'grammar' });
}

/** Makes the function that adds to places all those that are reached from them without reading anything. */
function createClosure(
  { states, entries }: GrammarProgram,
  reach: Reach,
  effort: Effort,
  onRenew: () => void,
): (places: readonly Place[]) => GrammarState | null {
  const frames = new Map<string, Frame>();
  const intern = createInterning(states, () => {
    frames.clear();
    onRenew();
  });
  let frameCount = 0;
  const push = (target: number, below: Frame | null): Frame | null => {
    // Nothing is left to do after the call: the caller's caller is next.
    if (target === endState) return below;
    const key = `${target} ${below?.id ?? ''}`;
    let frame = frames.get(key);
    if (frame === undefined) {
      frame = { id: frameCount++, target, below };
      frames.set(key, frame);
    }
    return frame;
  };
  const nextOf = ({ state: number, stack }: Place): Place[] => {
    const state = states[number] as ProgramState;
    switch (state.kind) {
      case 'split':
        return state.targets.map((target) => ({ state: target, stack }));
      case 'call':
        if (reach[state.target] === 0) return [];
        return [{ state: entries[state.rule] as number, stack: push(state.target, stack) }];
      case 'end':
        return stack === null ? [] : [{ state: stack.target, stack: stack.below }];
      default:
        return [];
    }
  };
  return (places) => {
    const found = new Map<string, Place>();
    const left = [...places];
    for (let place = left.pop(); place !== undefined; place = left.pop()) {
      const key = `${place.state} ${place.stack?.id ?? ''}`;
      if (reach[place.state] === 0 || found.has(key)) continue;
      if (found.size >= placesMax || ++effort.places > effortMax) throw tooAmbiguous();
      found.set(key, place);
      for (const next of nextOf(place)) left.push(next);
    }
    return intern(found);
  };
}

/** Makes the function that gives equal sets of places the same state; null for the set without any. */
function createInterning(
  states: readonly ProgramState[],
  onRenew: () => void,
): (found: ReadonlyMap<string, Place>) => GrammarState | null {
  let known = new Map<string, GrammarState>();
  let placeCount = 0;
  const kindOf = ({ state }: Place): ProgramState['kind'] => (states[state] as ProgramState).kind;
  return (found) => {
    const stops = [...found].filter(([, place]) => kindOf(place) === 'bytes' || kindOf(place) === 'token');
    const isEnd = [...found.values()].some((place) => place.stack === null && place.state === endState);
    if (stops.length === 0 && !isEnd) return null;
    const names = stops.map(([name]) => name).sort();
    const key = `${isEnd}|${names.join('|')}`;
    let state = known.get(key);
    if (state !== undefined) return state;
    placeCount += stops.length;
    if (known.size >= statesMax || placeCount > tablePlacesMax) {
      known = new Map();
      placeCount = stops.length;
      onRenew();
    }
    const places = stops.map(([, place]) => place);
    state = {
      isEnd,
      readers: places.filter((place) => kindOf(place) === 'bytes'),
      takers: places.filter((place) => kindOf(place) === 'token'),
      next: [],
    };
    known.set(key, state);
    return state;
  };
}

/** The places of a state, its end included. */
function placesOf(state: GrammarState | null): readonly Place[] {
  if (state === null) return [];
  const end: readonly Place[] = state.isEnd ? [{ state: endState, stack: null }] : [];
  return [...state.readers, ...state.takers, ...end];
}

/** Byte -> class; bytes that no edge of the grammar tells apart share one. */
function byteClasses({ states }: GrammarProgram): Uint8Array {
  const isBorder = new Uint8Array(257);
  for (const state of states) {
    if (state.kind !== 'bytes') continue;
    for (const { from, to } of state.edges) {
      isBorder[from] = 1;
      isBorder[to + 1] = 1;
    }
  }
  const classes = new Uint8Array(256);
  for (let byte = 1; byte < 256; byte++) {
    classes[byte] = (classes[byte - 1] as number) + (isBorder[byte] as number);
  }
  return classes;
}

function tooAmbiguous(): AppError {
  return new AppError(
    'job_failed',
    `the grammar can be read in too many ways here; write it with less choice`,
  );
}
