/**
 * Rules for the texts that several automata agree on (some of them by not accepting), within a length: the
 * product of their subset constructions, one rule per state.
 */
import { type CharSet, intersect, invert, unite } from './char-set.ts';
import { type Automaton, type Effort, step } from './regex-automaton.ts';
import { RegexError } from './regex-parser.ts';
import type { RuleSet } from './rule-set.ts';

/** One condition on a text. */
export interface Condition {
  readonly automaton: Automaton;
  /** The text must not be accepted. */
  readonly isNegated: boolean;
}

export interface Lengths {
  readonly min: number;
  readonly max: number | null;
}

/** A set of states per condition, and how many characters were read, as far as that matters. */
interface Point {
  readonly states: readonly (readonly number[])[];
  readonly length: number;
  readonly moves: { readonly set: CharSet; readonly target: number }[];
}

const pointsMax = 4000;
const classesMax = 300;
const conditionsMax = 16;
const effortMax = 5_000_000;

/** Errors: RegexError when there is no such text, or when the rules would be too many. */
export function addLanguageRules(
  conditions: readonly Condition[],
  lengths: Lengths,
  toBody: (set: CharSet) => string,
  rules: RuleSet,
): string {
  if (conditions.length > conditionsMax) throw new RegexError(`comes with more than ${conditionsMax} others`);
  const points = explore(conditions, lengths);
  const isEnd = ({ states, length }: Point): boolean =>
    length >= lengths.min &&
    conditions.every(({ automaton, isNegated }, index) => {
      const isAccepted = (states[index] as readonly number[]).some((state) => automaton.accepting.has(state));
      return isAccepted !== isNegated;
    });
  const alive = findAlive(points, isEnd);
  if (!alive.has(0)) throw new RegexError('leaves no text that the other keywords allow');
  const names = new Map([...alive].map((index) => [index, rules.fresh('text')]));
  for (const [index, name] of names) {
    const point = points[index] as Point;
    const ways = point.moves
      .filter(({ target }) => alive.has(target))
      .map(({ set, target }) => `${toBody(set)} ${names.get(target)}`);
    if (isEnd(point)) ways.push('""');
    rules.set(name, ways.join(' | '));
  }
  return names.get(0) as string;
}

/** Every point that can be reached; the first is the start. */
function explore(conditions: readonly Condition[], { min, max }: Lengths): Point[] {
  const classes = splitClasses(conditions.flatMap(({ automaton }) => automaton.sets));
  const points: Point[] = [];
  const effort: Effort = { left: effortMax };
  const known = new Map<string, number>();
  const numberOf = (states: readonly (readonly number[])[], length: number): number => {
    const key = `${length} ${states.map((set) => set.join(',')).join(' ')}`;
    let index = known.get(key);
    if (index === undefined) {
      if (points.length >= pointsMax) {
        throw new RegexError('is too large to be joined with the length or the format beside it');
      }
      index = points.push({ states, length, moves: [] }) - 1;
      known.set(key, index);
    }
    return index;
  };
  numberOf(
    conditions.map(() => [0]),
    0,
  );
  for (let index = 0; index < points.length; index++) {
    const { states, length, moves } = points[index] as Point;
    if (length === max) continue;
    // Past `min` an unlimited length no longer counts.
    const after = max === null ? Math.min(length + 1, min) : length + 1;
    const byTarget = new Map<number, CharSet[]>();
    for (const set of classes) {
      // No set of the automata splits this one: any of its characters speaks for all.
      const code = set[0]?.[0] as number;
      const next = conditions.map(({ automaton }, at) =>
        step(automaton, states[at] as readonly number[], code, effort),
      );
      if (next.some((left, at) => left.length === 0 && conditions[at]?.isNegated === false)) continue;
      const target = numberOf(next, after);
      byTarget.set(target, [...(byTarget.get(target) ?? []), set]);
    }
    for (const [target, sets] of byTarget) moves.push({ set: unite(...sets), target });
  }
  return points;
}

/** The coarsest sets that none of `sets` splits; together they are every character. */
function splitClasses(sets: readonly CharSet[]): CharSet[] {
  const distinct = new Map(sets.map((set) => [JSON.stringify(set), set]));
  let classes: CharSet[] = [invert([])];
  for (const set of distinct.values()) {
    const others = invert(set);
    classes = classes.flatMap((part) => [intersect(part, set), intersect(part, others)]);
    classes = classes.filter((part) => part.length > 0);
    if (classes.length > classesMax) throw new RegexError('tells too many characters apart');
  }
  return classes;
}

/** Points from which an end can be reached. */
function findAlive(points: readonly Point[], isEnd: (point: Point) => boolean): ReadonlySet<number> {
  const sources: number[][] = points.map(() => []);
  for (const [index, { moves }] of points.entries())
    for (const { target } of moves) sources[target]?.push(index);
  const left = points.flatMap((point, index) => (isEnd(point) ? [index] : []));
  const alive = new Set(left);
  for (let index = left.pop(); index !== undefined; index = left.pop()) {
    for (const source of sources[index] as number[]) {
      if (alive.has(source)) continue;
      alive.add(source);
      left.push(source);
    }
  }
  return alive;
}
