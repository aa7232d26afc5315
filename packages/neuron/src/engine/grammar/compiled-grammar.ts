import { checkProgram } from './check-program.ts';
import { parseGbnf } from './gbnf-parser.ts';
import { createGrammarMachine, type GrammarMachine, type GrammarState } from './grammar-machine.ts';
import { buildProgram } from './grammar-program.ts';
import { allowedTokens, setBit, type TokenMask, toMask } from './token-mask.ts';
import { buildTokenTrie, type TokenTrie } from './token-trie.ts';

/** What a grammar needs to know of a model's vocabulary. */
export interface GrammarVocabulary {
  readonly size: number;
  readonly eogTokens: readonly number[];
  isEog(token: number): boolean;
  pieceOf(token: number): { readonly bytes: Uint8Array };
  tokenize(
    text: string,
    options: { readonly addSpecial: boolean; readonly parseSpecial: boolean },
  ): Int32Array;
}

/** A grammar ready to be followed by any number of requests. */
export interface CompiledGrammar {
  readonly machine: GrammarMachine;
  /** Tokens that may come next, the end-of-generation ones when the text may end here. */
  maskOf(state: GrammarState): TokenMask;
  /** Whether few enough bytes may come next that asking for the mask first costs next to nothing. */
  isNarrow(state: GrammarState): boolean;
  readonly trie: TokenTrie;
  /** A mask for a place outside the grammar, made once for each of the few such places. */
  keepMask(key: string, make: () => TokenMask): TokenMask;
}

export interface GrammarCache {
  /** Errors: `invalid_request` with param `grammar`. */
  compile(gbnf: string, root: string): CompiledGrammar;
}

const grammarsMax = 8;
const maskBytesMax = 8 << 20;
const narrowBytesMax = 24;
const outsideMasksMax = 16;

/**
 * Agents send the same schemas again and again: the grammars used last are kept, with the tables that they
 * grew while running. The vocabulary's tree is built when the first grammar comes.
 */
export function createGrammarCache(vocabulary: GrammarVocabulary): GrammarCache {
  const kept = new Map<string, CompiledGrammar>();
  let trie: TokenTrie | null = null;
  const bytesOf = (token: number): Uint8Array =>
    vocabulary.isEog(token) ? new Uint8Array() : vocabulary.pieceOf(token).bytes;
  const toToken = (text: string): number | null => {
    const id = /^<\[(\d{1,9})\]>$/.exec(text)?.[1];
    if (id !== undefined) return Number(id) < vocabulary.size ? Number(id) : null;
    const tokens = vocabulary.tokenize(text, { addSpecial: false, parseSpecial: true });
    return tokens.length === 1 ? (tokens[0] as number) : null;
  };
  return {
    compile(gbnf, root) {
      const key = `${root}\n${gbnf}`;
      let grammar = kept.get(key);
      if (grammar === undefined) {
        const program = buildProgram(parseGbnf(gbnf, toToken), root);
        const machine = createGrammarMachine(program, checkProgram(program));
        trie ??= buildTokenTrie(vocabulary.size, bytesOf);
        grammar = createCompiledGrammar(machine, trie, vocabulary.eogTokens);
      }
      // The one used last stands last.
      kept.delete(key);
      kept.set(key, grammar);
      if (kept.size > grammarsMax) kept.delete(kept.keys().next().value as string);
      return grammar;
    },
  };
}

function createCompiledGrammar(
  machine: GrammarMachine,
  trie: TokenTrie,
  eogTokens: readonly number[],
): CompiledGrammar {
  let masks = new WeakMap<GrammarState, TokenMask>();
  let maskBytes = 0;
  const narrow = new WeakMap<GrammarState, boolean>();
  const outside = new Map<string, TokenMask>();
  return {
    machine,
    trie,
    keepMask(key, make) {
      const mask = outside.get(key) ?? make();
      outside.delete(key);
      outside.set(key, mask);
      if (outside.size > outsideMasksMax) outside.delete(outside.keys().next().value as string);
      return mask;
    },
    maskOf(state) {
      let mask = masks.get(state);
      if (mask !== undefined) return mask;
      machine.beginToken();
      const bits = allowedTokens(machine, state, trie);
      if (state.isEnd) for (const token of eogTokens) setBit(bits, token);
      mask = toMask(bits);
      maskBytes += bits.byteLength;
      if (maskBytes > maskBytesMax) {
        masks = new WeakMap();
        maskBytes = bits.byteLength;
      }
      masks.set(state, mask);
      return mask;
    },
    isNarrow(state) {
      let isFew = narrow.get(state);
      if (isFew === undefined) {
        machine.beginToken();
        isFew = machine.firstBytes(state) <= narrowBytesMax && state.takers.length === 0;
        narrow.set(state, isFew);
      }
      return isFew;
    },
  };
}
