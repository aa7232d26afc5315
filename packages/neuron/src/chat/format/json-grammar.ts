/** How grammars spell calls that are JSON objects. */
import type { CallGrammar, GrammarPart } from './chat-format.ts';

export interface JsonGrammar {
  /** Around all calls. */
  readonly begin?: string;
  readonly end?: string;
  readonly between?: string;
  /** Around each of them. */
  readonly before?: string;
  readonly after?: string;
  readonly nameKey?: string;
  readonly argumentsKey?: string;
  readonly triggers: readonly string[];
  readonly isParallel?: boolean;
}

export function jsonGrammar(options: JsonGrammar): CallGrammar {
  const { before = '', after = '', nameKey = 'name', argumentsKey = 'arguments' } = options;
  return {
    begin: options.begin ?? '',
    between: options.between ?? '',
    end: options.end ?? '',
    triggers: options.triggers,
    isParallel: options.isParallel ?? true,
    call: ({ name }): GrammarPart[] => [
      text(`${before}{"${nameKey}": ${JSON.stringify(name)}, "${argumentsKey}": `),
      { kind: 'arguments' },
      text(`}${after}`),
    ],
  };
}

export function text(literal: string): GrammarPart {
  return { kind: 'text', text: literal };
}
