/** What may come next in one answer: see answer-walk.ts for where it may stand. */
import type { GrammarSpec, ReasoningSpec } from 'cortex-core/wire/inference';
import { maskBeforeAnswer } from './answer-mask.ts';
import { afterToken, createWalk, isEndBegun, type Position, startOf } from './answer-walk.ts';
import type { CompiledGrammar, GrammarVocabulary } from './grammar/compiled-grammar.ts';
import type { GrammarState } from './grammar/grammar-machine.ts';
import { createBits, setBit, type TokenMask, toMask } from './grammar/token-mask.ts';

export interface AnswerGuide {
  /** Whether any token could be refused at all. */
  readonly canRefuse: boolean;
  /** Whether to ask for the mask before a token is chosen: it is cheap here, and rules most out. */
  readonly isNarrow: boolean;
  isAllowed(token: number): boolean;
  mask(): TokenMask;
  /** Takes the chosen token in; it must be allowed. */
  accept(token: number): void;
  /**
   * The token that has to come next, whatever the model says: a part of a forced end of reasoning; null when
   * the model may choose. The caller accepts it like a chosen one.
   */
  forced(): number | null;
  /**
   * The model chose `token`, which is not allowed. True when it wants to end inside its reasoning while what
   * the grammar asks for is still to come: the block is closed for it, and `forced()` says how.
   */
  closesReasoning(token: number): boolean;
}

export interface GuideOptions {
  readonly grammar: CompiledGrammar | null;
  readonly lazy: GrammarSpec['lazy'];
  readonly reasoning: ReasoningSpec | null;
  readonly vocabulary: GrammarVocabulary;
}

/** Tokens past the budget that the block's own end, begun in time, may take. */
const graceTokens = 16;

export function createAnswerGuide({ grammar, lazy, reasoning, vocabulary }: GuideOptions): AnswerGuide {
  const walk = createWalk(grammar, lazy, reasoning);
  const isStrict = walk.first.kind === 'enforced';
  let position = startOf(walk);
  let queue: number[] = [];

  const after = (token: number): Position | null => {
    const { bytes } = vocabulary.pieceOf(token);
    // A token without text adds nothing, so a grammar could be sent round in circles with it.
    return bytes.length === 0 && isStrict ? null : afterToken(walk, position, token, bytes);
  };
  const isEndAllowed = (): boolean => {
    if (position.phase === 'reasoning') return !isStrict;
    const inner = position.phase === 'gap' ? walk.first : position.inner;
    return inner !== null && (inner.kind !== 'enforced' || inner.state.isEnd);
  };
  const isAllowed = (token: number): boolean =>
    vocabulary.isEog(token) ? isEndAllowed() : after(token) !== null;
  const closeBlock = (): void => {
    const text = reasoning?.end ?? '';
    queue = [...vocabulary.tokenize(text, { addSpecial: false, parseSpecial: true })];
  };
  const isSpent = (): boolean => {
    const budget = reasoning?.budget ?? null;
    if (budget === null || position.phase !== 'reasoning' || position.tokens < budget) return false;
    return position.tokens >= budget + graceTokens || !isEndBegun(walk, position.tail);
  };
  return {
    canRefuse: grammar !== null,
    get isNarrow() {
      const state = enforcedState(position);
      return grammar !== null && state !== null && grammar.isNarrow(state);
    },
    isAllowed,
    mask() {
      const state = enforcedState(position);
      if (grammar !== null && state !== null) return grammar.maskOf(state);
      const before = maskBeforeAnswer(walk, position, vocabulary, isAllowed);
      if (before !== null) return before;
      const bits = createBits(vocabulary.size);
      for (let token = 0; token < vocabulary.size; token++) if (isAllowed(token)) setBit(bits, token);
      return toMask(bits);
    },
    accept(token) {
      if (queue[0] === token) queue.shift();
      if (vocabulary.isEog(token)) return;
      const next = after(token);
      if (next === null) throw new Error(`token ${token} was accepted and is not allowed`);
      position = next;
      grammar?.machine.beginToken();
    },
    forced() {
      if (queue.length === 0 && isSpent()) closeBlock();
      return queue[0] ?? null;
    },
    closesReasoning(token) {
      if (position.phase !== 'reasoning' || !vocabulary.isEog(token)) return false;
      closeBlock();
      return true;
    },
  };
}

function enforcedState(position: Position): GrammarState | null {
  return position.phase === 'answer' && position.inner.kind === 'enforced' ? position.inner.state : null;
}
