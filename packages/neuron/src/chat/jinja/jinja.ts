/**
 * Jinja 3.1 as chat templates use it, in the environment that transformers gives them.
 *
 * Problem: a template decides what a model sees. Small differences (what `strip('\n')` strips, how a list
 *          prints) make answers worse without a trace, and agents send 25,000 tokens a turn.
 * Design:  source -> segments -> tree -> closures, once per model; rendering calls closures on the request's
 *          own objects, which are never copied. Tests compare every byte with recordings of Python's Jinja.
 * Limits:  1 MiB of source, 2 million loop turns and macro calls, lists of 10 million. No include, import,
 *          inheritance, recursive loops, autoescape: they say so with their line.
 */
import { compileBlock, fieldsOf } from './compile-template.ts';
import { parseTemplate } from './parse-template.ts';
import { toText } from './print.ts';
import { type Execute, type Out, Run, Scope } from './scope.ts';
import { strftime } from './strftime.ts';
import { JinjaError } from './syntax.ts';
import { type Callable, Namespace, numberOf } from './values.ts';

const sourceMax = 1024 * 1024;
const rangeMax = 100_000;
const stepsDefault = 2_000_000;

export class JinjaTemplate {
  readonly #body: Execute;

  /** Throws a JinjaError with the line of the first fault. */
  constructor(source: string) {
    if (source.length > sourceMax) throw new JinjaError('the template is longer than 1 MiB', 0);
    this.#body = guarded(
      () => compileBlock(parseTemplate(source)),
      () => 0,
    );
  }

  /** `now`: what `strftime_now` shows; `stepsMax`: loop turns and macro calls. Throws a JinjaError. */
  render(variables: Readonly<Record<string, unknown>>, now: () => Date, stepsMax = stepsDefault): string {
    const run = new Run(stepsMax);
    const scope = globals(run, now).inner();
    for (const [name, value] of Object.entries(variables)) {
      if (value !== undefined) scope.set(name, value);
    }
    const out: Out = { text: '' };
    guarded(
      () => this.#body(scope, out),
      () => run.line,
    );
    return out.text;
  }
}

function guarded<T>(run: () => T, line: () => number): T {
  try {
    return run();
  } catch (thrown) {
    if (thrown instanceof JinjaError) throw thrown;
    const isStack = thrown instanceof RangeError;
    const message = isStack
      ? 'the template calls itself too deeply or makes a text too long'
      : thrown instanceof Error
        ? thrown.message
        : String(thrown);
    throw new JinjaError(message, line(), { cause: thrown });
  }
}

function globals(run: Run, now: () => Date): Scope {
  const scope = new Scope(run, null);
  const define = (name: string, callable: Callable): void => scope.set(name, callable);
  define('raise_exception', ([message]) => {
    throw new JinjaError(toText(message), run.line);
  });
  define('range', range);
  define('namespace', (args, kwargs) => new Namespace(fieldsOf(args, kwargs)));
  define('dict', fieldsOf);
  define('strftime_now', ([format]) => strftime(toText(format), now()));
  define('joiner', ([separator]) => {
    let used = false;
    return () => {
      const text = used ? toText(separator ?? ', ') : '';
      used = true;
      return text;
    };
  });
  return scope;
}

function range(args: readonly unknown[]): number[] {
  const numbers = args.map((arg) => {
    const number = numberOf(arg);
    if (number === null || !Number.isInteger(number)) throw new Error('range() needs whole numbers');
    return number;
  });
  const [start, stop, step] =
    numbers.length === 1 ? [0, numbers[0] ?? 0, 1] : [numbers[0] ?? 0, numbers[1] ?? 0, numbers[2] ?? 1];
  if (step === 0) throw new Error('range() needs a step that is not 0');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > rangeMax) throw new Error(`range() is longer than ${rangeMax}`);
  return Array.from({ length }, (_, at) => start + at * step);
}
