/**
 * The tokens that may come between a reasoning block and a grammar, or where either may begin: those that
 * the grammar reads from here, blanks before them, and the block's own beginning. The vocabulary's tree is
 * walked for them, so that what begins with none of these is never looked at.
 */
import type { Position, Walk } from './answer-walk.ts';
import type { CompiledGrammar, GrammarVocabulary } from './grammar/compiled-grammar.ts';
import type { GrammarState } from './grammar/grammar-machine.ts';
import { createBits, setBit, type TokenMask, toMask } from './grammar/token-mask.ts';

/** How far a token has come on its way through the tree. */
interface Way {
  /** Only blanks so far, which neither the grammar nor the block's beginning sees. */
  readonly isBlank: boolean;
  readonly blanks: number;
  /** Bytes of the block's beginning that were read; null = it is not that. */
  readonly matched: number | null;
  /** null = the grammar does not read it. */
  readonly state: GrammarState | null;
}

const blankBytes: readonly number[] = [0x20, 0x09, 0x0d, 0x0a];
const blankText = /^[ \t\r\n]*$/;

/**
 * The mask for a position in `opening` or `gap` under a grammar that is enforced from there; `isAllowed` is
 * asked where the tree alone does not tell. Null elsewhere, and for grammars that take tokens by number.
 */
export function maskBeforeAnswer(
  walk: Walk,
  position: Position,
  vocabulary: GrammarVocabulary,
  isAllowed: (token: number) => boolean,
): TokenMask | null {
  const { grammar, first } = walk;
  if (grammar === null || first.kind !== 'enforced') return null;
  const from = startWay(walk, position, first.state);
  if (from === null || (from.state?.takers.length ?? 0) > 0) return null;
  const place = position.phase === 'opening' ? position.seen : from.blanks;
  const key = JSON.stringify([position.phase, place, walk.start, walk.end, walk.endsAt]);
  return grammar.keepMask(key, () => {
    const bits = createBits(vocabulary.size);
    grammar.machine.beginToken();
    fillMask(bits, walk.start, grammar, from, isAllowed);
    for (const token of vocabulary.eogTokens) if (isAllowed(token)) setBit(bits, token);
    return toMask(bits);
  });
}

function startWay({ start }: Walk, position: Position, first: GrammarState): Way | null {
  if (position.phase === 'gap') {
    return { isBlank: true, blanks: position.blanks, matched: null, state: first };
  }
  if (position.phase !== 'opening') return null;
  const { seen, inner } = position;
  const solid = seen.trimStart();
  const state = inner?.kind === 'enforced' ? inner.state : null;
  const matched = start.startsWith(solid) ? solid.length : null;
  return { isBlank: blankText.test(seen), blanks: 0, matched, state };
}

function fillMask(
  bits: Uint32Array,
  start: string,
  { machine, trie }: CompiledGrammar,
  from: Way,
  isAllowed: (token: number) => boolean,
): void {
  const { bytes, depths, skips, starts, tokens } = trie;
  const ways: Way[] = [from];
  for (let node = 0; node < bytes.length; ) {
    const depth = depths[node] as number;
    const way = takeByte(start, machine, ways[depth - 1] as Way, bytes[node] as number);
    if (way === null) {
      node = skips[node] as number;
      continue;
    }
    ways[depth] = way;
    // Read by the grammar from its first byte on: nothing else has a say.
    const isSure = way.state !== null && !way.isBlank && way.blanks === 0 && way.matched !== start.length;
    for (let at = starts[node] as number; at < (starts[node + 1] as number); at++) {
      const token = tokens[at] as number;
      if (isSure || isAllowed(token)) setBit(bits, token);
    }
    node++;
  }
}

/** null: no token with this beginning may come. */
function takeByte(start: string, machine: CompiledGrammar['machine'], way: Way, byte: number): Way | null {
  if (way.isBlank && blankBytes.includes(byte)) return { ...way, blanks: way.blanks + 1 };
  const state = way.state === null ? null : machine.step(way.state, byte);
  let { matched } = way;
  // Behind the block's beginning anything may come.
  if (matched !== null && matched < start.length) {
    matched = start.charCodeAt(matched) === byte ? matched + 1 : null;
  }
  if (state === null && matched === null) return null;
  return { isBlank: false, blanks: way.blanks, matched, state };
}
