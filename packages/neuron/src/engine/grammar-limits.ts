/**
 * Which grammars libllama may be handed.
 *
 * Problem: some texts end the process inside its parser instead of being refused by it (llama.cpp v0.4.0,
 * llama-grammar.cpp). It recurses for every bracket, and in its search for left recursion for every rule that
 * begins with another: a worker's stack of 4 MB ended at 7,000 brackets and at 20,000 rules. And `{5,1}`
 * counts its optional rules down from 2^64 until the memory is gone. A token by its id or name, `<[5]>` or
 * `!<|im_end|>`, is let through after the first characters of another token, and then throws where nobody
 * catches it.
 * Design: one pass that counts brackets and rules, reads the repetitions and finds the tokens. What else is
 * wrong with a grammar the parser says itself.
 */

const nestingMax = 256;
const rulesMax = 8192;

/** Literals, character classes and comments in one piece, for they hold anything; then what is looked at. */
const pieces = /"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|#[^\n]*|::=|[(){}<!]|\d+/gs;

/** Why the grammar is refused; null when it may be parsed. */
export function describeGrammarFault(grammar: string): string | null {
  let nesting = 0;
  let rules = 0;
  let repetition: number[] | null = null;
  for (const [piece] of grammar.matchAll(pieces)) {
    if (piece === '{') repetition = [];
    else if (piece === '}') {
      const [least = 0, most = least] = repetition ?? [];
      if (most < least) return `grammar repeats something {${least},${most}} times`;
      repetition = null;
    } else if (/^\d/.test(piece)) repetition?.push(Number(piece));
    if (piece === '<' || piece === '!') return 'grammar names a token outside of quotes; write its text';
    if (piece === '(') nesting++;
    if (piece === ')') nesting--;
    if (piece === '(' || piece === '::=') rules++;
    if (nesting > nestingMax) return `grammar nests deeper than ${nestingMax} brackets`;
    if (rules > rulesMax) return `grammar has more than ${rulesMax} rules and brackets`;
  }
  return null;
}
