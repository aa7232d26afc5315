import { toClassExcept, toLiteral } from './gbnf-text.ts';
import type { RuleSet } from './rule-set.ts';

/**
 * Rules for any text in which none of `stops` occurs, the empty one included; returns the first one's name.
 *
 * The Aho-Corasick automaton of the stops, one rule per state: a character leads to the longest end of the
 * text so far that begins a stop, and characters that would complete one are missing.
 */
export function addTextUntil(rules: RuleSet, stops: readonly string[]): string {
  const words = stops.filter((stop) => stop !== '').map((stop) => [...stop]);
  const beginnings = words.flatMap((word) =>
    word.slice(0, -1).map((_, end) => word.slice(0, end + 1).join('')),
  );
  const names = new Map([...new Set(['', ...beginnings])].map((text) => [text, rules.fresh('until')]));
  const letters = [...new Set(words.flat())].sort();
  const isStopped = (text: string): boolean => words.some((word) => text.endsWith(word.join('')));
  const longestBeginning = (text: string): string => {
    const chars = [...text];
    const from = chars.findIndex((_, at) => names.has(chars.slice(at).join('')));
    return from < 0 ? '' : chars.slice(from).join('');
  };
  const first = names.get('') as string;
  const others = letters.length === 0 ? '.' : toClassExcept(letters);
  for (const [beginning, name] of names) {
    const ways = [`${others} ${first}`];
    for (const letter of letters) {
      const text = beginning + letter;
      if (!isStopped(text)) ways.push(`${toLiteral(letter)} ${names.get(longestBeginning(text))}`);
    }
    rules.set(name, `(${ways.join(' | ')})?`);
  }
  return first;
}
