/** What a grammar must not do: go on for ever. Both checks take time linear in the program. */
import { AppError } from 'cortex-core/wire/errors';
import { endState, type GrammarProgram, type ProgramState } from './grammar-program.ts';

/** For each state, whether the end of its rule can be reached from it. */
export type Reach = Uint8Array;

/**
 * Errors: `invalid_request` for a rule that begins with itself (reading it would never begin) and for a root
 * that can never end. Returns the states from which an end can be reached; the others are never entered.
 */
export function checkProgram(program: GrammarProgram): Reach {
  const canEnd = spread(program, true);
  if (canEnd[program.entries[0] as number] === 0) {
    throw bad(`can never end: rule ${program.names[0]} needs itself again and again`);
  }
  const isEmpty = spread(program, false);
  const looping = findLeftRecursion(program, isEmpty);
  if (looping !== null)
    throw bad(`rule ${program.names[looping]} begins with itself; write it the other way round`);
  return canEnd;
}

/** Marks the states from which the end is reached: with text read on the way, or only by empty moves. */
function spread({ states, entries }: GrammarProgram, withText: boolean): Reach {
  const reached = new Uint8Array(states.length);
  const dependents: number[][] = states.map(() => []);
  for (const [state, { targets, entry }] of states
    .map((state) => needs(state, entries, withText))
    .entries()) {
    for (const target of targets) dependents[target]?.push(state);
    if (entry !== null) dependents[entry]?.push(state);
  }
  const left = [endState];
  reached[endState] = 1;
  while (left.length > 0) {
    const done = left.pop() as number;
    for (const state of dependents[done] as number[]) {
      if (reached[state] === 1) continue;
      const { targets, entry } = needs(states[state] as ProgramState, entries, withText);
      const isOpen = entry === null || reached[entry] === 1;
      if (!isOpen || !targets.some((target) => reached[target] === 1)) continue;
      reached[state] = 1;
      left.push(state);
    }
  }
  return reached;
}

/** A state reaches the end when one of `targets` does, and `entry` too if there is one. */
function needs(
  state: ProgramState,
  entries: readonly number[],
  withText: boolean,
): { readonly targets: readonly number[]; readonly entry: number | null } {
  switch (state.kind) {
    case 'end':
      return { targets: [], entry: null };
    case 'split':
      return { targets: state.targets, entry: null };
    case 'call':
      return { targets: [state.target], entry: entries[state.rule] as number };
    case 'bytes':
      return { targets: withText ? state.edges.map((edge) => edge.target) : [], entry: null };
    case 'token':
      return { targets: withText ? [state.target] : [], entry: null };
  }
}

/** A rule that can call itself before it reads anything; null = none. */
function findLeftRecursion(program: GrammarProgram, isEmpty: Reach): number | null {
  const calls = program.entries.map((entry) => leftCalls(program, isEmpty, entry));
  // 1: on the way, 2: done.
  const marks = new Uint8Array(calls.length);
  for (let start = 0; start < calls.length; start++) {
    if (marks[start] !== 0) continue;
    const way: { readonly rule: number; at: number }[] = [{ rule: start, at: 0 }];
    marks[start] = 1;
    for (let top = way.at(-1); top !== undefined; top = way.at(-1)) {
      const callee = calls[top.rule]?.[top.at++];
      if (callee === undefined) {
        marks[top.rule] = 2;
        way.pop();
      } else if (marks[callee] === 1) return callee;
      else if (marks[callee] === 0) {
        marks[callee] = 1;
        way.push({ rule: callee, at: 0 });
      }
    }
  }
  return null;
}

/** Rules called from `entry` before any text is read. */
function leftCalls({ states, entries }: GrammarProgram, isEmpty: Reach, entry: number): number[] {
  const called = new Set<number>();
  const seen = new Set([entry]);
  const left = [entry];
  while (left.length > 0) {
    const state = states[left.pop() as number] as ProgramState;
    let next: readonly number[] = [];
    if (state.kind === 'split') next = state.targets;
    if (state.kind === 'call') {
      called.add(state.rule);
      if (isEmpty[entries[state.rule] as number] === 1) next = [state.target];
    }
    for (const target of next) {
      if (seen.has(target)) continue;
      seen.add(target);
      left.push(target);
    }
  }
  return [...called];
}

function bad(why: string): AppError {
  return new AppError('invalid_request', `grammar ${why}`, { param: 'grammar' });
}
