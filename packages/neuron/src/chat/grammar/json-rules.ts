import type { RuleSet } from './rule-set.ts';

/**
 * JSON as rules. Blanks are bounded, numbers have at most 15 significant digits (what a double keeps), and
 * free values nest at most `depthMax` deep, so that no answer can run on in them without end.
 */
export interface JsonRules {
  readonly blank: string;
  readonly char: string;
  readonly string: string;
  /** A string without escapes that have a plain spelling, so that two spellings are never one key. */
  readonly keyChar: string;
  readonly integer: string;
  readonly number: string;
  readonly boolean: string;
  readonly null: string;
  /** Any object, array or value: rule names, added when first asked for. */
  object(): string;
  array(): string;
  value(): string;
}

const depthMax = 12;
const hex = '[0-9a-fA-F]';

export function addJsonRules(rules: RuleSet): JsonRules {
  const blank = rules.add('blank', '(" " | "\\x0a" [ \\x09]{0,20})?');
  const low = `[dD] [89abAB] ${hex} ${hex} "\\x5cu" [dD] [c-fC-F] ${hex} ${hex}`;
  const unit = `([0-9a-cA-CeEfF] ${hex} ${hex} ${hex} | [dD] [0-7] ${hex} ${hex} | ${low})`;
  const char = rules.add('char', `[^\\x22\\x5c\\x00-\\x1f] | "\\x5c" (["\\x5c/bfnrt] | "u" ${unit})`);
  const keyChar = rules.add('key-char', '[^\\x22\\x5c\\x00-\\x1f] | "\\x5c" ["\\x5cbfnrt]');
  const string = rules.add('string', `"\\x22" ${char}* "\\x22"`);
  const integer = rules.add('integer', '"-"? ("0" | [1-9] [0-9]{0,14})');
  const fraction = '"." [0-9]{1,6}';
  const number = rules.add('number', `"-"? ("0" | [1-9] [0-9]{0,8}) (${fraction})? ([eE] [-+]? [0-9]{1,2})?`);
  const boolean = rules.add('boolean', '"true" | "false"');
  const none = rules.add('null', '"null"');
  const scalar = `${string} | ${number} | ${boolean} | ${none}`;
  const free = (): { object: string; array: string; value: string } => {
    let [object, array, value] = ['', '', rules.add('value', scalar)];
    for (let depth = 0; depth < depthMax; depth++) {
      const member = rules.add('member', `${string} ":" ${blank} ${value}`);
      object = rules.add('object', `"{" ${blank} (${member} ("," ${blank} ${member})* ${blank})? "}"`);
      array = rules.add('array', `"[" ${blank} (${value} ("," ${blank} ${value})* ${blank})? "]"`);
      value = rules.add('value', `${object} | ${array} | ${scalar}`);
    }
    return { object, array, value };
  };
  return {
    blank,
    char,
    keyChar,
    string,
    integer,
    number,
    boolean,
    null: none,
    object: () => free().object,
    array: () => free().array,
    value: () => free().value,
  };
}
