/**
 * A grammar as a program of a machine that reads bytes: one graph of states per rule, with calls between
 * them. Built backwards: every node is compiled for the state that follows it.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { GbnfNode, GbnfRules } from './gbnf-parser.ts';
import { toByteSequences } from './utf8-ranges.ts';

export interface ByteEdge {
  readonly from: number;
  readonly to: number;
  readonly target: number;
}

export type ProgramState =
  /** The end of a rule: back to where it was called. */
  | { readonly kind: 'end' }
  | { readonly kind: 'split'; targets: number[] }
  | { readonly kind: 'bytes'; readonly edges: ByteEdge[] }
  /** Rule number, and the state after it. */
  | { readonly kind: 'call'; readonly rule: number; readonly target: number }
  | { readonly kind: 'token'; readonly token: number; readonly isInverted: boolean; readonly target: number };

export interface GrammarProgram {
  readonly states: readonly ProgramState[];
  /** First state of each rule; the root is rule 0. */
  readonly entries: readonly number[];
  /** For messages; rules made from parts of others have the others' names. */
  readonly names: readonly string[];
}

/** The only `end`, in every program. */
export const endState = 0;

const statesMax = 400_000;
/** Repetitions of more are built from blocks of so many. */
const blockSize = 256;

interface Builder {
  readonly states: ProgramState[];
  readonly entries: number[];
  readonly names: string[];
  readonly numbers: Map<string, number>;
  /** Rules that are called and not compiled yet. */
  readonly pending: string[];
  /** The rule being compiled. */
  name: string;
}

/** Makes the state from which one piece of grammar, and then what follows the given state, is read. */
type Piece = (next: number) => number;

/** Errors: `invalid_request` for a missing rule, or a grammar too large. */
export function buildProgram(rules: GbnfRules, root: string): GrammarProgram {
  const builder: Builder = {
    states: [{ kind: 'end' }],
    entries: [],
    names: [],
    numbers: new Map(),
    pending: [],
    name: root,
  };
  numberOf(builder, root);
  for (;;) {
    const name = builder.pending.pop();
    if (name === undefined) break;
    const body = rules.get(name);
    if (body === undefined) throw bad(`has no rule named ${name}`);
    builder.name = name;
    builder.entries[numberOf(builder, name)] = compile(builder, body, endState);
  }
  return { states: builder.states, entries: builder.entries, names: builder.names };
}

function numberOf(builder: Builder, name: string): number {
  let number = builder.numbers.get(name);
  if (number === undefined) {
    number = builder.names.push(name) - 1;
    builder.numbers.set(name, number);
    builder.pending.push(name);
  }
  return number;
}

function add(builder: Builder, state: ProgramState): number {
  if (builder.states.length >= statesMax) throw bad(`is too large: it takes more than ${statesMax} states`);
  return builder.states.push(state) - 1;
}

/** The state from which `node` and then what follows `next` is read. */
function compile(builder: Builder, node: GbnfNode, next: number): number {
  switch (node.kind) {
    case 'text':
      return compileText(builder, node.text, next);
    case 'chars':
      return compileChars(builder, node, next);
    case 'sequence':
      return node.items.reduceRight((target, item) => compile(builder, item, target), next);
    case 'choice': {
      const targets = node.options.map((option) => compile(builder, option, next));
      return add(builder, { kind: 'split', targets });
    }
    case 'rule':
      return add(builder, { kind: 'call', rule: numberOf(builder, node.name), target: next });
    case 'token':
      return add(builder, { kind: 'token', token: node.token, isInverted: node.isInverted, target: next });
    case 'repeat':
      return compileRepeat(builder, node.item, node.min, node.max, next);
  }
}

function compileText(builder: Builder, text: string, next: number): number {
  const bytes = new TextEncoder().encode(text);
  return bytes.reduceRight(
    (target, byte) => add(builder, { kind: 'bytes', edges: [{ from: byte, to: byte, target }] }),
    next,
  );
}

function compileChars(builder: Builder, node: Extract<GbnfNode, { kind: 'chars' }>, next: number): number {
  const edges: ByteEdge[] = [];
  const tails = new Map<string, number>();
  for (const sequence of toByteSequences(node.ranges, node.isInverted)) {
    let target = next;
    let key = '';
    for (const [from, to] of sequence.slice(1).reverse()) {
      key += `${from}-${to} `;
      let state = tails.get(key);
      if (state === undefined) {
        state = add(builder, { kind: 'bytes', edges: [{ from, to, target }] });
        tails.set(key, state);
      }
      target = state;
    }
    const [from, to] = sequence[0] as readonly [number, number];
    edges.push({ from, to, target });
  }
  return add(builder, { kind: 'bytes', edges });
}

function compileRepeat(
  builder: Builder,
  node: GbnfNode,
  min: number,
  max: number | null,
  next: number,
): number {
  if (max === 0) return next;
  const once: Piece = (after) => compile(builder, node, after);
  // One item alone stands in place; copies call a rule, so that nested repetitions add up, not multiply.
  const isAlone = node.kind === 'rule' || max === 1 || (max === null && min === 0);
  const item = isAlone ? once : asRule(builder, once);
  const optional =
    max === null ? compileLoop(builder, item, next) : compileOptional(builder, item, max - min, next);
  return compileTimes(builder, item, min, optional);
}

function compileLoop(builder: Builder, item: Piece, next: number): number {
  const targets = [next];
  const loop = add(builder, { kind: 'split', targets });
  targets.unshift(item(loop));
  return loop;
}

/** Exactly `count` items. */
function compileTimes(builder: Builder, item: Piece, count: number, next: number): number {
  const blocks = count > 2 * blockSize ? Math.floor(count / blockSize) : 0;
  let state = next;
  for (let left = count - blocks * blockSize; left > 0; left--) state = item(state);
  if (blocks === 0) return state;
  const block = asRule(builder, (after) => compileTimes(builder, item, blockSize, after));
  for (let left = blocks; left > 0; left--) state = block(state);
  return state;
}

/** At most `count` items. */
function compileOptional(builder: Builder, item: Piece, count: number, next: number): number {
  const blocks = count > 2 * blockSize ? Math.floor(count / blockSize) - 1 : 0;
  const fewer = (most: number, after: number): number => {
    let state = after;
    for (let left = most; left > 0; left--) {
      state = add(builder, { kind: 'split', targets: [item(state), after] });
    }
    return state;
  };
  const rest = fewer(count - blocks * blockSize, next);
  if (blocks === 0) return rest;
  // Before each whole block: it, or the few that may be left instead.
  const few = asRule(builder, (after) => fewer(blockSize - 1, after));
  const block = asRule(builder, (after) => compileTimes(builder, item, blockSize, after));
  let state = rest;
  for (let left = blocks; left > 0; left--) {
    state = add(builder, { kind: 'split', targets: [block(state), few(next)] });
  }
  return state;
}

/** A piece compiled once, as a rule that is called. */
function asRule(builder: Builder, piece: Piece): Piece {
  const rule = builder.names.push(builder.name) - 1;
  builder.entries[rule] = 0;
  builder.entries[rule] = piece(endState);
  return (next) => add(builder, { kind: 'call', rule, target: next });
}

function bad(why: string): AppError {
  return new AppError('invalid_request', `grammar ${why}`, { param: 'grammar' });
}
