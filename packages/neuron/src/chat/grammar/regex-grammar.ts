import { type CharSet, intersect, setOf, unite } from './char-set.ts';
import { toAlternatives, toClass, toLiteral, toRepeat } from './gbnf-text.ts';
import { addLanguageRules, type Condition, type Lengths } from './language-rules.ts';
import { automatonOf, matches } from './regex-automaton.ts';
import { anyText, parseRegex, type Regex, RegexError } from './regex-parser.ts';
import type { RuleSet } from './rule-set.ts';

const testEffortMax = 20_000_000;
/** Code points that JSON may spell as themselves inside a string. */
const plainChars: CharSet = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, 0x10ffff],
];
const escapedChars = unite([[0, 0x1f]], setOf('"\\'));

/** What a whole text must match, and what it must match or not match besides. */
export interface Pattern {
  readonly regex: Regex;
  readonly also: readonly { readonly regex: Regex; readonly isNegated: boolean }[];
}

/**
 * JSON Schema's `pattern`, as conditions on the whole text: without an anchor anything may stand around it;
 * lookaheads at its beginning are conditions of their own. Errors: RegexError for what cannot be enforced.
 */
export function parsePattern(pattern: string): Pattern {
  const parsed = parseRegex(pattern);
  const items = parsed.kind === 'sequence' ? [...parsed.items] : [parsed];
  const also: { regex: Regex; isNegated: boolean }[] = [];
  for (let item = items[1]; items[0]?.kind === 'start' && item?.kind === 'look'; item = items[1]) {
    also.push({ regex: anchored(fromStart(item.item)), isNegated: item.isNegated });
    items.splice(1, 1);
  }
  return { regex: anchored({ kind: 'sequence', items }), also };
}

function fromStart(regex: Regex): Regex {
  if (regex.kind === 'choice') return { kind: 'choice', options: regex.options.map(fromStart) };
  const items = regex.kind === 'sequence' ? regex.items : [regex];
  return { kind: 'sequence', items: [{ kind: 'start' }, ...items] };
}

/**
 * Makes the test whether all of `patterns` are found in a text, in time linear in both.
 * Errors: RegexError, from the test too, when all its texts together take too long.
 */
export function createPatternTest(patterns: readonly string[]): (text: string) => boolean {
  const conditions = patterns.map(parsePattern).flatMap(conditionsOf);
  const effort = { left: testEffortMax };
  return (text) =>
    conditions.every(({ automaton, isNegated }) => matches(automaton, text, effort) !== isNegated);
}

function conditionsOf({ regex, also }: Pattern): Condition[] {
  const all = [{ regex, isNegated: false }, ...also];
  return all.map((part) => ({ automaton: automatonOf(part.regex), isNegated: part.isNegated }));
}

function toRegexBody(regex: Regex, rules: RuleSet): string {
  switch (regex.kind) {
    case 'chars':
      return toCharBody(regex.set, rules);
    case 'sequence':
      return toSequenceBody(regex.items, rules);
    case 'choice':
      return toAlternatives(regex.options.map((option) => toRegexBody(option, rules)));
    case 'repeat':
      return toRepeat(toRegexBody(regex.item, rules), regex.min, regex.max);
    default:
      throw new RegexError('has an anchor or a lookahead in the middle');
  }
}

/**
 * GBNF for what stands between the quotes of a JSON string of `min` to `max` code points that matches all of
 * `patterns`, spelled as JSON.stringify spells it. Errors: RegexError when there is none, or with too many
 * rules.
 */
export function toStringBody(patterns: readonly Pattern[], lengths: Lengths, rules: RuleSet): string {
  const [only, second] = patterns;
  if (only !== undefined && second === undefined && only.also.length === 0) {
    const bounded = withLengths(only.regex, lengths);
    if (bounded !== null) return toRegexBody(bounded, rules);
  }
  return addLanguageRules(patterns.flatMap(conditionsOf), lengths, (set) => toCharBody(set, rules), rules);
}

/** The pattern with the lengths in it, where that is simple; null where it is not. */
function withLengths(regex: Regex, { min, max }: Lengths): Regex | null {
  const [shortest, longest] = lengthsOf(regex);
  const isMaxKept = max === null || (longest !== null && longest <= max);
  if (shortest >= min && isMaxKept) return regex;
  if (longest !== null && longest < min) throw new RegexError(`never reaches ${min} characters`);
  if (max !== null && shortest > max) throw new RegexError(`needs more than ${max} characters`);
  const single = onlyItem(regex);
  if (single?.kind !== 'repeat' || single.item.kind !== 'chars') return null;
  const high = single.max === null ? max : max === null ? single.max : Math.min(max, single.max);
  return { ...single, min: Math.max(min, single.min), max: high };
}

/** Code points that a text may have which `regex` matches: fewest, most (null = without end). */
function lengthsOf(regex: Regex): readonly [number, number | null] {
  switch (regex.kind) {
    case 'chars':
      return [1, 1];
    case 'sequence':
      return regex.items.map(lengthsOf).reduce(([a, b], [c, d]) => [a + c, sum(b, d)], [0, 0]);
    case 'choice': {
      const all = regex.options.map(lengthsOf);
      const most = all.some(([, max]) => max === null) ? null : Math.max(...all.map(([, max]) => max ?? 0));
      return [Math.min(...all.map(([min]) => min)), most];
    }
    case 'repeat': {
      const [min, max] = lengthsOf(regex.item);
      const isEndless = (regex.max === null && max !== 0) || (max === null && regex.max !== 0);
      return [min * regex.min, isEndless ? null : (max ?? 0) * (regex.max ?? 0)];
    }
    default:
      return [0, 0];
  }
}

function sum(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a + b;
}

function onlyItem(regex: Regex): Regex | null {
  if (regex.kind !== 'sequence') return regex;
  return regex.items.length === 1 ? onlyItem(regex.items[0] as Regex) : null;
}

function toSequenceBody(items: readonly Regex[], rules: RuleSet): string {
  const parts = items.map((item) => {
    const body = toRegexBody(item, rules);
    return item.kind === 'choice' ? `(${body})` : body;
  });
  return parts.filter((part) => part !== '""').join(' ') || '""';
}

function toCharBody(set: CharSet, rules: RuleSet): string {
  const plain = intersect(set, plainChars);
  const escaped = intersect(set, escapedChars);
  const codes = escaped.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i));
  const ways = codes.map((code) => toLiteral(JSON.stringify(String.fromCodePoint(code)).slice(1, -1)));
  if (plain.length > 0) ways.unshift(toClass(plain));
  if (ways.length === 0) throw new RegexError('has a character class that matches nothing');
  return ways.length === 1 ? (ways[0] as string) : rules.add('chars', ways.join(' | '));
}

/** Takes the anchors away; where one is missing any text may stand. */
function anchored(regex: Regex): Regex {
  if (regex.kind === 'choice') return { kind: 'choice', options: regex.options.map(anchored) };
  const items = regex.kind === 'sequence' ? [...regex.items] : [regex];
  const only = items.length === 1 ? (items[0] as Regex) : null;
  // A group around everything: `(^a|b$)`.
  if (only !== null && (only.kind === 'choice' || only.kind === 'sequence')) return anchored(only);
  let [hasStart, hasEnd] = [false, false];
  while (items[0]?.kind === 'start') {
    items.shift();
    hasStart = true;
  }
  while (items.at(-1)?.kind === 'end') {
    items.pop();
    hasEnd = true;
  }
  if (!hasStart) items.unshift(anyText);
  if (!hasEnd) items.push(anyText);
  return { kind: 'sequence', items };
}
