/** Grammars put together. Pure. */
import type { GrammarSpec } from 'cortex-core/wire/inference';
import { toLiteral } from './gbnf-text.ts';

/** What one or the other of two grammars matches. Neither may be lazy. */
export function eitherGrammar(a: GrammarSpec, b: GrammarSpec): GrammarSpec {
  const [first, second] = [prefixRules(a, 'a'), prefixRules(b, 'b')];
  const root = `either ::= ${first.root} | ${second.root}`;
  return { gbnf: `${root}\n${first.gbnf}\n${second.gbnf}`, root: 'either' };
}

/** The grammar behind one of the given texts. */
export function behindTexts(texts: readonly string[], grammar: GrammarSpec): GrammarSpec {
  const inner = prefixRules(grammar, 'a');
  const heads = texts.map(toLiteral).join(' | ');
  return { gbnf: `behind ::= (${heads}) ${inner.root}\n${inner.gbnf}`, root: 'behind' };
}

/**
 * Strings, character classes, repetitions and comments hold no names of rules. A name may begin with a digit:
 * `1` is what the second branch of an `anyOf` is called.
 */
const piece = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|#[^\n]*|[\w-]+/g;

function prefixRules({ gbnf, root = 'root' }: GrammarSpec, prefix: string) {
  const renamed = gbnf.replace(piece, (text) => (/^[\w-]/.test(text) ? `${prefix}-${text}` : text));
  return { gbnf: renamed, root: `${prefix}-${root}` };
}
