import { toLiteral } from './gbnf-text.ts';
import { createRuleSet } from './rule-set.ts';
import { addSchemaRules, type SchemaOptions } from './schema-grammar.ts';
import { addTextUntil } from './text-until.ts';

/** Collects GBNF rules. The caller adds `root`; `toString()` is the grammar. */
export interface GrammarBuilder {
  /**
   * Adds the rules of a JSON Schema and returns the name of its own. `hint` begins the names; `param` is the
   * request field that the schema came in, for errors; `root` is the schema that its references point into,
   * itself when absent.
   * Errors: `invalid_request` naming the keyword that cannot be enforced.
   */
  addSchema(schema: unknown, hint?: string, param?: string, root?: unknown): string;
  /**
   * Adds `name ::= body`, under `name-1`, `name-2`, ... when the name is taken; returns the name. Characters
   * that a rule name may not have become `-`.
   */
  addRule(name: string, body: string): string;
  /** A rule for any text, also none, in which none of `stops` occurs; returns its name. */
  textUntil(stops: readonly string[]): string;
  /** GBNF that matches exactly `text`. */
  literal(text: string): string;
  toString(): string;
}

/** `unsupported: 'widen'` leaves out what cannot be enforced: for schemas that are a hint, not a promise. */
export function createGrammarBuilder(options: Partial<Omit<SchemaOptions, 'root'>> = {}): GrammarBuilder {
  const { param: paramDefault = 'schema', unsupported = 'refuse' } = options;
  const rules = createRuleSet(paramDefault);
  return {
    addSchema: (schema, hint = 'value', param = paramDefault, root = schema) =>
      addSchemaRules(rules, schema, hint, { param, unsupported, root }),
    addRule(name, body) {
      const free = rules.fresh(name);
      rules.set(free, body);
      return free;
    },
    textUntil: (stops) => addTextUntil(rules, stops),
    literal: toLiteral,
    toString: () => rules.toString(),
  };
}
