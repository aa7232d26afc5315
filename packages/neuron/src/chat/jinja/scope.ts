/** What a template can see while it runs. */
import { JinjaError } from './syntax.ts';

/** One rendering: where it is, and how much it may still do. */
export class Run {
  /** Line of the tag at work, for a fault's message. */
  line = 0;
  #steps = 0;
  readonly #stepsMax: number;

  constructor(stepsMax: number) {
    this.#stepsMax = stepsMax;
  }

  /** Once per turn of a loop and per call of a macro. Templates are foreign code. */
  step(): void {
    if (++this.#steps <= this.#stepsMax) return;
    throw new JinjaError(`the template ran ${this.#stepsMax} turns without an end`, this.line);
  }
}

export class Scope {
  readonly run: Run;
  readonly #parent: Scope | null;
  readonly #names = new Map<string, unknown>();

  constructor(run: Run, parent: Scope | null) {
    this.run = run;
    this.#parent = parent;
  }

  get(name: string): unknown {
    let scope: Scope | null = this;
    do {
      const value = scope.#names.get(name);
      if (value !== undefined || scope.#names.has(name)) return value;
      scope = scope.#parent;
    } while (scope !== null);
    return undefined;
  }

  set(name: string, value: unknown): void {
    this.#names.set(name, value);
  }

  inner(): Scope {
    return new Scope(this.run, this);
  }

  /** For the next turn of a loop: what the last one set is gone. */
  clear(): void {
    if (this.#names.size > 0) this.#names.clear();
  }
}

/** Text that grows. */
export interface Out {
  text: string;
}

/** `break` and `continue` on their way to the loop. */
export type Signal = 'break' | 'continue' | undefined;

export type Evaluate = (scope: Scope) => unknown;
export type Execute = (scope: Scope, out: Out) => Signal;
