/** Tokens -> expressions, with the precedence of Jinja 3.1. */
import type { Token } from './lexer.ts';
import { type CallArgs, type Expr, JinjaError, type Target } from './syntax.ts';

const comparisons: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=']);
const constants: ReadonlyMap<string, unknown> = new Map([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
]);
const noArgs: CallArgs = { positional: [], named: [], spread: null, namedSpread: null };
const depthMax = 200;

export class ExpressionParser {
  readonly #tokens: readonly Token[];
  /** Of the tag, for a fault at its end. */
  readonly #line: number;
  #at = 0;
  #depth = 0;

  constructor(tokens: readonly Token[], line: number) {
    this.#tokens = tokens;
    this.#line = line;
  }

  get line(): number {
    return this.#tokens[this.#at]?.line ?? this.#line;
  }

  peek(): Token | undefined {
    return this.#tokens[this.#at];
  }

  fail(message: string): never {
    throw new JinjaError(message, this.line);
  }

  /** Takes the operator or keyword when it is next. */
  take(text: string, type: 'op' | 'name' = 'op'): boolean {
    const token = this.#tokens[this.#at];
    if (token?.type !== type || token.text !== text) return false;
    this.#at++;
    return true;
  }

  expect(text: string, type: 'op' | 'name' = 'op'): void {
    if (!this.take(text, type)) this.fail(`expected "${text}", found ${this.#found()}`);
  }

  takeName(): string {
    const token = this.#tokens[this.#at];
    if (token?.type !== 'name') this.fail(`expected a name, found ${this.#found()}`);
    this.#at++;
    return token.text;
  }

  expectEnd(): void {
    if (this.#at < this.#tokens.length) this.fail(`expected the end of the tag, found ${this.#found()}`);
  }

  /** One expression, or several with commas between them as one tuple. */
  tuple(withConditional = true): Expr {
    const first = withConditional ? this.expression() : this.#or();
    if (!this.take(',')) return first;
    const items = [first];
    while (this.#at < this.#tokens.length && !this.#isAny(')', ']', '}', '=')) {
      if (this.peek()?.type === 'name' && this.peek()?.text === 'in') break;
      items.push(withConditional ? this.expression() : this.#or());
      if (!this.take(',')) break;
    }
    return { kind: 'tuple', items };
  }

  expression(): Expr {
    if (++this.#depth > depthMax) this.fail('an expression is nested too deeply');
    let value = this.#or();
    while (this.take('if', 'name')) {
      const test = this.#or();
      const otherwise = this.take('else', 'name') ? this.expression() : null;
      value = { kind: 'cond', test, yes: value, otherwise };
    }
    this.#depth--;
    return value;
  }

  /** What `for` and `set` assign to. */
  target(): Target {
    const items = [this.#targetItem()];
    let isTuple = false;
    while (this.take(',')) {
      isTuple = true;
      if (this.#isAny('=') || this.peek()?.text === 'in') break;
      items.push(this.#targetItem());
    }
    return isTuple ? { kind: 'tuple', items } : (items[0] as Target);
  }

  /** `name(args)|name...`, to be applied to an input that comes later. */
  filters(): (input: Expr) => Expr {
    const chain: ((input: Expr) => Expr)[] = [this.#filterStep()];
    while (this.take('|')) chain.push(this.#filterStep());
    return (input) => chain.reduce((value, step) => step(value), input);
  }

  #targetItem(): Target {
    if (this.take('(')) {
      const inner = this.target();
      this.expect(')');
      return inner;
    }
    const name = this.takeName();
    return this.take('.') ? { kind: 'attr', object: name, name: this.takeName() } : { kind: 'name', name };
  }

  #or(): Expr {
    let left = this.#and();
    while (this.take('or', 'name')) left = { kind: 'or', left, right: this.#and() };
    return left;
  }

  #and(): Expr {
    let left = this.#not();
    while (this.take('and', 'name')) left = { kind: 'and', left, right: this.#not() };
    return left;
  }

  #not(): Expr {
    return this.take('not', 'name') ? { kind: 'not', operand: this.#not() } : this.#compare();
  }

  #compare(): Expr {
    const first = this.#sum();
    const rest: (readonly [string, Expr])[] = [];
    for (;;) {
      const token = this.peek();
      if (token?.type === 'op' && comparisons.has(token.text)) {
        this.#at++;
        rest.push([token.text, this.#sum()]);
      } else if (this.take('in', 'name')) {
        rest.push(['in', this.#sum()]);
      } else if (
        token?.type === 'name' &&
        token.text === 'not' &&
        this.#tokens[this.#at + 1]?.text === 'in'
      ) {
        this.#at += 2;
        rest.push(['not in', this.#sum()]);
      } else break;
    }
    return rest.length === 0 ? first : { kind: 'compare', first, rest };
  }

  #sum(): Expr {
    return this.#leftToRight(['+', '-'], () => this.#leftToRight(['~'], () => this.#product()));
  }

  #product(): Expr {
    return this.#leftToRight(['*', '/', '//', '%'], () => this.#leftToRight(['**'], () => this.#unary(true)));
  }

  #leftToRight(operators: readonly string[], next: () => Expr): Expr {
    let left = next();
    for (;;) {
      const token = this.peek();
      if (token?.type !== 'op' || !operators.includes(token.text)) return left;
      this.#at++;
      left = { kind: 'binary', op: token.text, left, right: next() };
    }
  }

  #unary(withFilters: boolean): Expr {
    let node: Expr;
    if (this.take('-')) node = { kind: 'neg', operand: this.#unary(false) };
    else if (this.take('+')) node = { kind: 'pos', operand: this.#unary(false) };
    else node = this.#postfix(this.#primary());
    return withFilters ? this.#filtersAndTests(node) : node;
  }

  #primary(): Expr {
    const token = this.peek();
    if (token === undefined) this.fail('the tag ends where a value is expected');
    if (token.type === 'op') return this.#bracketed(token);
    this.#at++;
    if (token.type === 'number') {
      const isFloat = /[.eE]/.test(token.text);
      return { kind: 'const', value: isFloat ? new FloatLiteral(token.text) : Number(token.text) };
    }
    if (token.type === 'string') {
      let text = token.text;
      for (let next = this.peek(); next?.type === 'string'; next = this.peek()) {
        text += next.text;
        this.#at++;
      }
      return { kind: 'const', value: text };
    }
    if (constants.has(token.text)) return { kind: 'const', value: constants.get(token.text) };
    return { kind: 'name', name: token.text, line: token.line };
  }

  #bracketed(token: Token): Expr {
    this.#at++;
    if (token.text === '(') {
      if (this.take(')')) return { kind: 'tuple', items: [] };
      const inner = this.tuple();
      this.expect(')');
      return inner;
    }
    if (token.text === '[') {
      const items: Expr[] = [];
      while (!this.take(']')) {
        if (items.length > 0) this.expect(',');
        if (this.take(']')) break;
        items.push(this.expression());
      }
      return { kind: 'list', items };
    }
    if (token.text === '{') {
      const pairs: (readonly [Expr, Expr])[] = [];
      while (!this.take('}')) {
        if (pairs.length > 0) this.expect(',');
        if (this.take('}')) break;
        const key = this.expression();
        this.expect(':');
        pairs.push([key, this.expression()]);
      }
      return { kind: 'dict', pairs };
    }
    this.#at--;
    return this.fail(`unexpected ${this.#found()}`);
  }

  #postfix(start: Expr): Expr {
    let node = start;
    for (;;) {
      const { line } = this;
      if (this.take('.')) {
        const token = this.peek();
        if (token?.type === 'number') {
          this.#at++;
          node = { kind: 'item', object: node, index: { kind: 'const', value: Number(token.text) }, line };
        } else node = { kind: 'attr', object: node, name: this.takeName(), line };
      } else if (this.take('[')) node = this.#subscript(node, line);
      else if (this.take('(')) node = { kind: 'call', callee: node, args: this.#args(), line };
      else return node;
    }
  }

  #subscript(object: Expr, line: number): Expr {
    const bounds: (Expr | null)[] = [];
    let isSlice = false;
    let pending: Expr | null = null;
    while (!this.take(']')) {
      if (this.take(':')) {
        isSlice = true;
        bounds.push(pending);
        pending = null;
      } else if (pending === null) pending = this.tuple();
      else this.fail(`expected "]", found ${this.#found()}`);
    }
    bounds.push(pending);
    if (isSlice) return { kind: 'slice', object, bounds };
    if (pending === null) this.fail('an index is missing');
    return { kind: 'item', object, index: pending, line };
  }

  #filtersAndTests(start: Expr): Expr {
    let node = start;
    for (;;) {
      const { line } = this;
      if (this.take('|')) node = this.#filterStep()(node);
      else if (this.take('is', 'name')) {
        const negated = this.take('not', 'name');
        const name = this.#dottedName();
        const test: Expr = { kind: 'test', input: node, name, args: this.#testArgs(), line };
        node = negated ? { kind: 'not', operand: test } : test;
      } else if (this.take('(')) node = { kind: 'call', callee: node, args: this.#args(), line };
      else return node;
    }
  }

  #filterStep(): (input: Expr) => Expr {
    const { line } = this;
    const name = this.#dottedName();
    const args = this.take('(') ? this.#args() : noArgs;
    return (input) => ({ kind: 'filter', input, name, args, line });
  }

  #dottedName(): string {
    let name = this.takeName();
    while (this.take('.')) name += `.${this.takeName()}`;
    return name;
  }

  /** `is divisibleby(3)` or `is divisibleby 3`. */
  #testArgs(): CallArgs {
    if (this.take('(')) return this.#args();
    const token = this.peek();
    if (token === undefined) return noArgs;
    const begins =
      token.type === 'string' ||
      token.type === 'number' ||
      (token.type === 'op' && (token.text === '[' || token.text === '{')) ||
      (token.type === 'name' &&
        !['else', 'or', 'and', 'is', 'if', 'not', 'in', 'recursive'].includes(token.text));
    return begins ? { ...noArgs, positional: [this.#postfix(this.#primary())] } : noArgs;
  }

  #args(): CallArgs {
    const positional: Expr[] = [];
    const named: (readonly [string, Expr])[] = [];
    let spread: Expr | null = null;
    let namedSpread: Expr | null = null;
    for (let first = true; !this.take(')'); first = false) {
      if (!first) this.expect(',');
      if (this.take(')')) break;
      const token = this.peek();
      if (this.take('**')) namedSpread = this.expression();
      else if (this.take('*')) spread = this.expression();
      else if (token?.type === 'name' && this.#isNamedArg()) {
        this.#at += 2;
        named.push([token.text, this.expression()]);
      } else positional.push(this.expression());
    }
    return { positional, named, spread, namedSpread };
  }

  #isNamedArg(): boolean {
    const next = this.#tokens[this.#at + 1];
    return next?.type === 'op' && next.text === '=';
  }

  #isAny(...texts: string[]): boolean {
    const token = this.peek();
    return token?.type === 'op' && texts.includes(token.text);
  }

  #found(): string {
    const token = this.peek();
    return token === undefined ? 'the end of the tag' : `"${token.text.slice(0, 40)}"`;
  }
}

/** A float as the template spells it: `1.0` prints as 1.0. */
export class FloatLiteral {
  readonly value: number;

  constructor(text: string) {
    this.value = Number(text);
  }
}
