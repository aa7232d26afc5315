/**
 * Expressions -> closures. A closure per node, made once per template, costs a fraction of walking the tree
 * on each render; nothing is generated as source text, so a template stays data.
 */
import { testOf } from './checks.ts';
import { filterOf } from './filters.ts';
import { methodOf } from './methods.ts';
import { FloatLiteral } from './parse-expression.ts';
import { percentFormat, toText } from './print.ts';
import type { Evaluate, Scope } from './scope.ts';
import { type CallArgs, type Expr, JinjaError } from './syntax.ts';
import {
  Attributed,
  arithmetic,
  type Callable,
  compare,
  contains,
  dictEntries,
  dictGet,
  equals,
  Float,
  isDict,
  itemOf,
  iterate,
  joined,
  type Kwargs,
  Namespace,
  numberOf,
  sliceOf,
  Tuple,
  toFloat,
  truthy,
} from './values.ts';

const noKwargs: Kwargs = new Map();

export function compileExpression(expr: Expr): Evaluate {
  switch (expr.kind) {
    case 'const': {
      const value = expr.value instanceof FloatLiteral ? toFloat(expr.value.value) : expr.value;
      return () => value;
    }
    case 'name': {
      const { name } = expr;
      return (scope) => scope.get(name);
    }
    case 'list': {
      const items = expr.items.map(compileExpression);
      return (scope) => items.map((item) => item(scope));
    }
    case 'tuple': {
      const items = expr.items.map(compileExpression);
      return (scope) => Tuple.from(items.map((item) => item(scope)));
    }
    case 'dict': {
      const pairs = expr.pairs.map(
        ([key, value]) => [compileExpression(key), compileExpression(value)] as const,
      );
      return (scope) => new Map(pairs.map(([key, value]) => [key(scope), value(scope)]));
    }
    case 'attr':
      return compileAttribute(expr);
    case 'item':
      return compileItem(expr);
    case 'slice': {
      const object = compileExpression(expr.object);
      const bounds = expr.bounds.map((bound) => (bound === null ? () => null : compileExpression(bound)));
      return (scope) =>
        sliceOf(
          object(scope),
          bounds.map((bound) => bound(scope)),
        );
    }
    case 'call':
      return compileCall(expr.callee, expr.args, expr.line);
    case 'filter':
      return compileFilter(expr);
    case 'test':
      return compileTest(expr);
    case 'cond': {
      const [test, yes] = [compileExpression(expr.test), compileExpression(expr.yes)];
      const otherwise = expr.otherwise === null ? () => undefined : compileExpression(expr.otherwise);
      return (scope) => (truthy(test(scope)) ? yes(scope) : otherwise(scope));
    }
    default:
      return compileOperator(expr);
  }
}

type Operator = Extract<Expr, { kind: 'not' | 'neg' | 'pos' | 'and' | 'or' | 'binary' | 'compare' }>;

function compileOperator(expr: Operator): Evaluate {
  switch (expr.kind) {
    case 'not': {
      const operand = compileExpression(expr.operand);
      return (scope) => !truthy(operand(scope));
    }
    case 'neg':
    case 'pos': {
      const operand = compileExpression(expr.operand);
      const sign = expr.kind === 'neg' ? -1 : 1;
      return (scope) => {
        const value = operand(scope);
        return arithmetic('*', value instanceof Float ? value : (numberOf(value) ?? value), sign);
      };
    }
    case 'and': {
      const [left, right] = [compileExpression(expr.left), compileExpression(expr.right)];
      return (scope) => {
        const value = left(scope);
        return truthy(value) ? right(scope) : value;
      };
    }
    case 'or': {
      const [left, right] = [compileExpression(expr.left), compileExpression(expr.right)];
      return (scope) => {
        const value = left(scope);
        return truthy(value) ? value : right(scope);
      };
    }
    case 'binary': {
      const { op } = expr;
      const [left, right] = [compileExpression(expr.left), compileExpression(expr.right)];
      if (op === '~') return (scope) => joined(toText(left(scope)), toText(right(scope)));
      return (scope) => {
        const [a, b] = [left(scope), right(scope)];
        if (op === '+' && typeof a === 'string' && typeof b === 'string') return joined(a, b);
        if (op === '%' && typeof a === 'string') return percentFormat(a, b);
        if (a === undefined) throw isUndefined(expr.left, scope);
        if (b === undefined) throw isUndefined(expr.right, scope);
        return arithmetic(op, a, b);
      };
    }
    case 'compare':
      return compileCompare(expr);
    default:
      return expr satisfies never;
  }
}

function compileCompare(expr: Extract<Expr, { kind: 'compare' }>): Evaluate {
  const first = compileExpression(expr.first);
  const rest = expr.rest.map(([op, right]) => [holdsOf(op), compileExpression(right)] as const);
  const [only] = rest;
  if (rest.length === 1 && only !== undefined) {
    const [holds, right] = only;
    return (scope) => holds(first(scope), right(scope));
  }
  return (scope) => {
    let left = first(scope);
    for (const [holds, next] of rest) {
      const right = next(scope);
      if (!holds(left, right)) return false;
      left = right;
    }
    return true;
  };
}

function holdsOf(op: string): (a: unknown, b: unknown) => boolean {
  switch (op) {
    case '==':
      return equals;
    case '!=':
      return (a, b) => !equals(a, b);
    case '<':
      return (a, b) => compare(a, b) < 0;
    case '<=':
      return (a, b) => compare(a, b) <= 0;
    case '>':
      return (a, b) => compare(a, b) > 0;
    case '>=':
      return (a, b) => compare(a, b) >= 0;
    case 'in':
      return (a, b) => contains(b, a);
    default:
      return (a, b) => !contains(b, a);
  }
}

/** As Jinja: on a mapping its methods come first (`tool.items`), then the key. */
function compileAttribute(expr: Extract<Expr, { kind: 'attr' }>): Evaluate {
  const object = compileExpression(expr.object);
  const { name } = expr;
  return (scope) => {
    const value = object(scope);
    if (value === undefined) throw isUndefined(expr.object, scope, expr.line);
    return attribute(value, name);
  };
}

function attribute(value: unknown, name: string): unknown {
  if (value instanceof Namespace) return value.fields.get(name);
  if (value instanceof Attributed) return value.attribute(name);
  return methodOf(value, name) ?? (isDict(value) ? dictGet(value, name) : undefined);
}

function compileItem(expr: Extract<Expr, { kind: 'item' }>): Evaluate {
  const [object, index] = [compileExpression(expr.object), compileExpression(expr.index)];
  return (scope) => {
    const value = object(scope);
    if (value === undefined) throw isUndefined(expr.object, scope, expr.line);
    const key = index(scope);
    const item = itemOf(value, key);
    return item === undefined && typeof key === 'string' ? methodOf(value, key) : item;
  };
}

type Args = (scope: Scope) => readonly [readonly unknown[], Kwargs];

function compileArgs({ positional, named, spread, namedSpread }: CallArgs): Args {
  const values = positional.map(compileExpression);
  const pairs = named.map(([name, value]) => [name, compileExpression(value)] as const);
  const more = spread === null ? null : compileExpression(spread);
  const moreNamed = namedSpread === null ? null : compileExpression(namedSpread);
  return (scope) => {
    const args = values.map((value) => value(scope));
    if (more !== null) args.push(...iterate(more(scope)));
    if (pairs.length === 0 && moreNamed === null) return [args, noKwargs];
    const kwargs = new Map(pairs.map(([name, value]) => [name, value(scope)]));
    const given = moreNamed?.(scope);
    if (isDict(given)) for (const [name, value] of dictEntries(given)) kwargs.set(String(name), value);
    return [args, kwargs];
  };
}

export function compileCall(
  callee: Expr,
  callArgs: CallArgs,
  line: number,
  caller?: (s: Scope) => Callable,
): Evaluate {
  const target = compileExpression(callee);
  const args = compileArgs(callArgs);
  return (scope) => {
    const callable = target(scope);
    const [values, given] = args(scope);
    const kwargs = caller === undefined ? given : new Map([...given, ['caller', caller(scope)]]);
    scope.run.line = line;
    if (typeof callable !== 'function') {
      if (callable === undefined) throw isUndefined(callee, scope, line);
      throw new JinjaError(`"${nameOf(callee)}" is not a function`, line);
    }
    const result: unknown = (callable as Callable)(values, kwargs);
    scope.run.line = line;
    return result;
  };
}

function compileFilter(expr: Extract<Expr, { kind: 'filter' | 'test' }>): Evaluate {
  const { name, line } = expr;
  const filter = filterOf(name);
  const input = compileExpression(expr.input);
  const args = compileArgs(expr.args);
  return (scope) => {
    // only where it is reached: a template may name a filter for a case that never comes
    if (filter === undefined) throw new JinjaError(`there is no filter "${name.slice(0, 40)}"`, line);
    const value = input(scope);
    const [values, kwargs] = args(scope);
    scope.run.line = line;
    return filter(value, values, kwargs);
  };
}

function compileTest(expr: Extract<Expr, { kind: 'filter' | 'test' }>): Evaluate {
  const { name, line } = expr;
  const test = testOf(name);
  const input = compileExpression(expr.input);
  const args = compileArgs(expr.args);
  if (expr.args.positional.length === 0 && test !== undefined)
    return (scope) => test(input(scope), [], noKwargs);
  return (scope) => {
    if (test === undefined) throw new JinjaError(`there is no test "${name.slice(0, 40)}"`, line);
    const value = input(scope);
    return test(value, ...args(scope));
  };
}

function isUndefined(expr: Expr, scope: Scope, line?: number): JinjaError {
  return new JinjaError(`"${nameOf(expr)}" is undefined`, line ?? scope.run.line);
}

/** How the template spells it, for a message. */
function nameOf(expr: Expr): string {
  switch (expr.kind) {
    case 'name':
      return expr.name;
    case 'attr':
      return `${nameOf(expr.object)}.${expr.name}`;
    case 'item': {
      const { index } = expr;
      const key = index.kind === 'const' ? JSON.stringify(index.value) : nameOf(index);
      return `${nameOf(expr.object)}[${key}]`;
    }
    case 'call':
      return `${nameOf(expr.callee)}()`;
    case 'filter':
      return `${nameOf(expr.input)}|${expr.name}`;
    case 'const':
      return JSON.stringify(expr.value) ?? 'undefined';
    default:
      return 'the value';
  }
}
