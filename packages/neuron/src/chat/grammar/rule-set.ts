import { AppError } from 'cortex-core/wire/errors';

/** GBNF rules under construction. */
export interface RuleSet {
  /** Adds a rule, or finds one with the same body; the name begins with `hint`. */
  add(hint: string, body: string): string;
  /** A name that no rule has, for a rule that refers to itself; `set` gives its body. */
  fresh(hint: string): string;
  set(name: string, body: string): void;
  has(name: string): boolean;
  toString(): string;
}

const rulesMax = 20_000;
const charactersMax = 1 << 20;

/** `param`: the request field that a grammar grown too large is blamed on. */
export function createRuleSet(param: string): RuleSet {
  const bodies = new Map<string, string>();
  const nameByBody = new Map<string, string>();
  const counts = new Map<string, number>();
  let characters = 0;
  const fresh = (hint: string): string => {
    const base = hint.replace(/[^a-zA-Z0-9]+/g, '-').slice(0, 40) || 'rule';
    let count = counts.get(base) ?? 0;
    let name = base;
    while (bodies.has(name)) name = `${base}-${++count}`;
    counts.set(base, count);
    bodies.set(name, '');
    return name;
  };
  const set = (name: string, body: string): void => {
    characters += name.length + body.length + 6;
    if (bodies.size > rulesMax || characters > charactersMax) {
      throw new AppError('invalid_request', `${param} is too large: it makes a grammar of over 1 MiB`, {
        param,
      });
    }
    bodies.set(name, body);
  };
  return {
    add(hint, body) {
      const known = nameByBody.get(body);
      if (known !== undefined) return known;
      const name = fresh(hint);
      set(name, body);
      nameByBody.set(body, name);
      return name;
    },
    fresh,
    set,
    has: (name) => bodies.has(name),
    toString: () => [...bodies].map(([name, body]) => `${name} ::= ${body}\n`).join(''),
  };
}
