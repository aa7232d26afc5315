import { invert, setOf, unite } from './char-set.ts';
import { toClass, toLiteral } from './gbnf-text.ts';
import type { RuleSet } from './rule-set.ts';

/** Escapes of one letter; a key in `json.keyChar`'s spelling has no others. */
const shortEscapes = '"\\bfnrt';

/**
 * What stands between the quotes of any JSON key that is none of `keys`: one rule per beginning of a key;
 * from a character on that no key continues with, anything may follow. `keyChar` must spell each key in one
 * way only.
 */
export function addKeyExcept(rules: RuleSet, keyChar: string, keys: readonly string[]): string {
  const spelled = keys.map(spell);
  const children = new Map<string, Set<string>>([['', new Set()]]);
  for (const units of spelled) {
    let prefix = '';
    for (const unit of units) {
      children.get(prefix)?.add(unit);
      prefix += unit;
      if (!children.has(prefix)) children.set(prefix, new Set());
    }
  }
  const ends = new Set(spelled.map((units) => units.join('')));
  const names = new Map([...children.keys()].map((prefix) => [prefix, rules.fresh('key')]));
  for (const [prefix, units] of children) {
    const ways = [...units].map((unit) => `${toLiteral(unit)} ${names.get(prefix + unit)}`);
    ways.push(`(${otherThan(units)}) ${keyChar}*`);
    if (!ends.has(prefix)) ways.push('""');
    rules.set(names.get(prefix) as string, ways.join(' | '));
  }
  return names.get('') as string;
}

/** A key as the units that `keyChar` reads: characters, and escapes of two. */
function spell(key: string): string[] {
  return [...key].map((char) => JSON.stringify(char).slice(1, -1));
}

function otherThan(units: ReadonlySet<string>): string {
  const plain = [...units].filter((unit) => [...unit].length === 1);
  const escapes = [...shortEscapes].filter((letter) => !units.has(`\\${letter}`));
  const others = invert(unite([[0, 0x1f]], setOf(`"\\${plain.join('')}`)));
  return escapes.length === 0
    ? toClass(others)
    : `${toClass(others)} | "\\x5c" ${toClass(setOf(escapes.join('')))}`;
}
