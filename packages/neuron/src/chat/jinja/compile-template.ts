/** Statements -> closures that write text. */
import { compileCall, compileExpression } from './compile-expression.ts';
import { toText } from './print.ts';
import type { Evaluate, Execute, Out, Scope } from './scope.ts';
import { type Block, type Expr, JinjaError, type Parameter, type Statement, type Target } from './syntax.ts';
import {
  Attributed,
  type Callable,
  dictEntries,
  isDict,
  iterate,
  joined,
  type Kwargs,
  Namespace,
  Tuple,
  truthy,
} from './values.ts';

export function compileBlock(block: Block): Execute {
  const steps = block.map(compileStatement);
  const [only] = steps;
  if (steps.length === 1 && only !== undefined) return only;
  return (scope, out) => {
    for (const step of steps) {
      const signal = step(scope, out);
      if (signal !== undefined) return signal;
    }
    return undefined;
  };
}

function compileStatement(statement: Statement): Execute {
  switch (statement.kind) {
    case 'text': {
      const { text } = statement;
      return writes((_, out) => {
        out.text += text;
      });
    }
    case 'output': {
      const { line } = statement;
      const value = compileExpression(statement.value);
      return writes((scope, out) => {
        scope.run.line = line;
        out.text = joined(out.text, toText(value(scope)));
      });
    }
    case 'if':
      return compileIf(statement);
    case 'for':
      return compileFor(statement);
    case 'set': {
      const { line } = statement;
      const [assign, value] = [compileTarget(statement.target), compileExpression(statement.value)];
      return writes((scope) => {
        scope.run.line = line;
        assign(scope, value(scope));
      });
    }
    case 'set_block': {
      const { line, filter } = statement;
      const [assign, text] = [compileTarget(statement.target), compileCapture(statement.body, filter)];
      return writes((scope) => {
        scope.run.line = line;
        assign(scope, text(scope));
      });
    }
    case 'macro': {
      const { name } = statement;
      const macro = compileMacro(statement.parameters, statement.body);
      return writes((scope) => scope.set(name, macro(scope)));
    }
    case 'call_block':
      return compileCallBlock(statement);
    case 'filter_block': {
      const text = compileCapture(statement.body, statement.filter);
      return writes((scope, out) => {
        out.text = joined(out.text, toText(text(scope)));
      });
    }
    case 'with':
      return compileWith(statement);
    case 'do': {
      const value = compileExpression(statement.value);
      return writes((scope) => void value(scope));
    }
    case 'break':
    case 'continue': {
      const signal = statement.kind;
      return () => signal;
    }
    default:
      return statement satisfies never;
  }
}

function writes(run: (scope: Scope, out: Out) => void): Execute {
  return (scope, out) => {
    run(scope, out);
    return undefined;
  };
}

function compileIf(statement: Extract<Statement, { kind: 'if' }>): Execute {
  const branches = statement.branches.map(({ test, body, line }) => {
    return { test: compileExpression(test), body: compileBlock(body), line };
  });
  const otherwise = compileBlock(statement.otherwise);
  return (scope, out) => {
    for (const { test, body, line } of branches) {
      scope.run.line = line;
      if (truthy(test(scope))) return body(scope, out);
    }
    return otherwise(scope, out);
  };
}

type Assign = (scope: Scope, value: unknown) => void;

function compileTarget(target: Target): Assign {
  switch (target.kind) {
    case 'name':
      return (scope, value) => scope.set(target.name, value);
    case 'attr':
      return (scope, value) => {
        const object = scope.get(target.object);
        if (!(object instanceof Namespace)) {
          throw new Error(`"${target.object}" is no namespace: its attributes cannot be set`);
        }
        object.fields.set(target.name, value);
      };
    case 'tuple': {
      const assigns = target.items.map(compileTarget);
      return (scope, value) => {
        const items = iterate(value);
        if (items.length !== assigns.length) {
          throw new Error(`${assigns.length} names cannot take ${items.length} values`);
        }
        for (const [at, assign] of assigns.entries()) assign(scope, items[at]);
      };
    }
    default:
      return target satisfies never;
  }
}

/** The loop's own variable. */
class Loop extends Attributed {
  index0 = 0;
  readonly items: readonly unknown[];
  #changed: readonly unknown[] | null = null;

  constructor(items: readonly unknown[]) {
    super();
    this.items = items;
  }

  override attribute(name: string): unknown {
    const { items, index0 } = this;
    switch (name) {
      case 'index':
        return index0 + 1;
      case 'index0':
        return index0;
      case 'revindex':
        return items.length - index0;
      case 'revindex0':
        return items.length - index0 - 1;
      case 'first':
        return index0 === 0;
      case 'last':
        return index0 === items.length - 1;
      case 'length':
        return items.length;
      case 'previtem':
        return index0 === 0 ? undefined : items[index0 - 1];
      case 'nextitem':
        return items[index0 + 1];
      case 'depth':
        return 1;
      case 'depth0':
        return 0;
      case 'cycle':
        return (args: readonly unknown[]) => args[index0 % args.length];
      case 'changed':
        return (args: readonly unknown[]) => this.#hasChanged(args);
      default:
        return undefined;
    }
  }

  #hasChanged(args: readonly unknown[]): boolean {
    const same =
      this.#changed?.length === args.length && args.every((each, at) => each === this.#changed?.[at]);
    this.#changed = args;
    return !same;
  }
}

function compileFor(statement: Extract<Statement, { kind: 'for' }>): Execute {
  const { line } = statement;
  const iterable = compileExpression(statement.iterable);
  const assign = compileTarget(statement.target);
  const filter = statement.filter === null ? null : compileExpression(statement.filter);
  const body = compileBlock(statement.body);
  const otherwise = compileBlock(statement.otherwise);

  return (scope, out) => {
    scope.run.line = line;
    const inner = scope.inner();
    const given = iterate(iterable(scope));
    const items = filter === null ? given : pick(inner, given, assign, filter);
    if (items.length === 0) return otherwise(scope, out);
    const loop = new Loop(items);
    for (let at = 0; at < items.length; at++) {
      scope.run.step();
      inner.clear();
      loop.index0 = at;
      inner.set('loop', loop);
      assign(inner, items[at]);
      if (body(inner, out) === 'break') break;
    }
    return undefined;
  };
}

function pick(scope: Scope, items: readonly unknown[], assign: Assign, filter: Evaluate): readonly unknown[] {
  return items.filter((item) => {
    scope.clear();
    assign(scope, item);
    return truthy(filter(scope));
  });
}

/** The body's text, filtered. What the body sets stays inside. */
function compileCapture(body: Block, filter: ((input: Expr) => Expr) | null): Evaluate {
  const run = compileBlock(body);
  const apply = filter === null ? null : compileExpression(filter({ kind: 'name', name: captured, line: 0 }));
  return (scope) => {
    const inner = scope.inner();
    const out: Out = { text: '' };
    run(inner, out);
    if (apply === null) return out.text;
    inner.set(captured, out.text);
    return apply(inner);
  };
}

/** No name that a template could spell. */
const captured = ' captured';

function compileMacro(parameters: readonly Parameter[], block: Block): (scope: Scope) => Callable {
  const body = compileBlock(block);
  const params = parameters.map(({ name: key, fallback }) => {
    return { key, fallback: fallback === null ? null : compileExpression(fallback) };
  });
  const keys = new Set(params.map(({ key }) => key));
  return (scope) => (args, kwargs) => {
    scope.run.step();
    const inner = scope.inner();
    for (const [at, { key, fallback }] of params.entries()) {
      const isGiven = at < args.length || kwargs.has(key);
      if (isGiven) inner.set(key, at < args.length ? args[at] : kwargs.get(key));
      else inner.set(key, fallback?.(inner));
    }
    inner.set('varargs', Tuple.from(args.slice(params.length)));
    inner.set('kwargs', new Map([...kwargs].filter(([key]) => !keys.has(key) && key !== 'caller')));
    inner.set('caller', kwargs.get('caller'));
    const out: Out = { text: '' };
    body(inner, out);
    return out.text;
  };
}

function compileWith(statement: Extract<Statement, { kind: 'with' }>): Execute {
  const pairs = statement.pairs.map(
    ([target, value]) => [compileTarget(target), compileExpression(value)] as const,
  );
  const body = compileBlock(statement.body);
  return (scope, out) => {
    const inner = scope.inner();
    for (const [assign, value] of pairs) assign(inner, value(scope));
    return body(inner, out);
  };
}

function compileCallBlock(statement: Extract<Statement, { kind: 'call_block' }>): Execute {
  const { call, line } = statement;
  if (call.kind !== 'call') throw new JinjaError('"call" needs a call of a macro', line);
  const caller = compileMacro(statement.parameters, statement.body);
  const value = compileCall(call.callee, call.args, line, caller);
  return writes((scope, out) => {
    out.text = joined(out.text, toText(value(scope)));
  });
}

/** `namespace(dict, key=value)` and `dict(...)` take their fields alike. */
export function fieldsOf(args: readonly unknown[], kwargs: Kwargs): Map<string, unknown> {
  const fields = new Map<string, unknown>();
  const [given] = args;
  if (isDict(given)) for (const [key, value] of dictEntries(given)) fields.set(String(key), value);
  for (const [key, value] of kwargs) fields.set(key, value);
  return fields;
}
