/** The tree of a parsed template. `line` counts from 1 in the template's source. */
export type Expr =
  | { readonly kind: 'const'; readonly value: unknown }
  | { readonly kind: 'name'; readonly name: string; readonly line: number }
  | { readonly kind: 'list' | 'tuple'; readonly items: readonly Expr[] }
  | { readonly kind: 'dict'; readonly pairs: readonly (readonly [Expr, Expr])[] }
  | { readonly kind: 'attr'; readonly object: Expr; readonly name: string; readonly line: number }
  | { readonly kind: 'item'; readonly object: Expr; readonly index: Expr; readonly line: number }
  | { readonly kind: 'slice'; readonly object: Expr; readonly bounds: readonly (Expr | null)[] }
  | { readonly kind: 'call'; readonly callee: Expr; readonly args: CallArgs; readonly line: number }
  | {
      readonly kind: 'filter' | 'test';
      readonly input: Expr;
      readonly name: string;
      readonly args: CallArgs;
      readonly line: number;
    }
  | { readonly kind: 'not' | 'neg' | 'pos'; readonly operand: Expr }
  | { readonly kind: 'and' | 'or'; readonly left: Expr; readonly right: Expr }
  | { readonly kind: 'binary'; readonly op: string; readonly left: Expr; readonly right: Expr }
  | { readonly kind: 'compare'; readonly first: Expr; readonly rest: readonly (readonly [string, Expr])[] }
  | { readonly kind: 'cond'; readonly test: Expr; readonly yes: Expr; readonly otherwise: Expr | null };

export interface CallArgs {
  readonly positional: readonly Expr[];
  readonly named: readonly (readonly [string, Expr])[];
  /** `*expr` and `**expr`. */
  readonly spread: Expr | null;
  readonly namedSpread: Expr | null;
}

/** What a value is assigned to: a name, an attribute of a namespace, or several of them. */
export type Target =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'attr'; readonly object: string; readonly name: string }
  | { readonly kind: 'tuple'; readonly items: readonly Target[] };

export interface Parameter {
  readonly name: string;
  readonly fallback: Expr | null;
}

export type Statement =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'output'; readonly value: Expr; readonly line: number }
  | { readonly kind: 'if'; readonly branches: readonly IfBranch[]; readonly otherwise: Block }
  | {
      readonly kind: 'for';
      readonly target: Target;
      readonly iterable: Expr;
      readonly filter: Expr | null;
      readonly body: Block;
      readonly otherwise: Block;
      readonly line: number;
    }
  | { readonly kind: 'set'; readonly target: Target; readonly value: Expr; readonly line: number }
  | {
      readonly kind: 'set_block';
      readonly target: Target;
      readonly body: Block;
      /** Applied to the constant `captured`. */
      readonly filter: ((input: Expr) => Expr) | null;
      readonly line: number;
    }
  | {
      readonly kind: 'macro';
      readonly name: string;
      readonly parameters: readonly Parameter[];
      readonly body: Block;
    }
  | {
      readonly kind: 'call_block';
      readonly call: Expr;
      readonly parameters: readonly Parameter[];
      readonly body: Block;
      readonly line: number;
    }
  | {
      readonly kind: 'filter_block';
      readonly filter: (input: Expr) => Expr;
      readonly body: Block;
      readonly line: number;
    }
  | { readonly kind: 'with'; readonly pairs: readonly (readonly [Target, Expr])[]; readonly body: Block }
  | { readonly kind: 'do'; readonly value: Expr; readonly line: number }
  | { readonly kind: 'break' | 'continue' };

export interface IfBranch {
  readonly test: Expr;
  readonly body: Block;
  readonly line: number;
}

export type Block = readonly Statement[];

/** A fault of the template or of what it was given. `line` is where in the template, 0 = unknown. */
export class JinjaError extends Error {
  readonly line: number;

  constructor(message: string, line: number, options?: ErrorOptions) {
    super(message, options);
    this.name = 'JinjaError';
    this.line = line;
  }
}
