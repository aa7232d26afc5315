/** What a client program needs to know to work with a gateway; a recipe for each is in the files beside. */
import { quoteForShell } from '../text.ts';

export interface RecipeInput {
  /** The gateway, without /v1 and without a slash at its end. */
  readonly url: string;
  readonly model: string;
  /** Tokens that a conversation may hold; null = the gateway does not tell. */
  readonly context: number | null;
  /** Tokens of the longest answer; null = the gateway does not tell. */
  readonly output: number | null;
  /** The gateway's key, or what stands for it. */
  readonly apiKey: string;
}

/** One thing to write somewhere: a file, or lines of a shell. */
export interface Snippet {
  /** `shell`, or the file it belongs into. */
  readonly into: string;
  readonly language: 'sh' | 'toml' | 'json' | 'yaml' | 'python' | 'js';
  readonly text: string;
}

/** How `cortex launch` starts it, with nothing written anywhere. */
export interface LaunchPlan {
  /** Its name on PATH. */
  readonly program: string;
  readonly install: string;
  /** What its own prompt and tools take before the person said a word; four characters counted as a token. */
  readonly promptTokens: number;
  /** Come before the arguments of the person. */
  readonly args: readonly string[];
  /** null = taken out of the environment. */
  readonly env: Readonly<Record<string, string | null>>;
}

export interface ClientRecipe {
  /** What `cortex clients NAME` is asked with. */
  readonly name: string;
  readonly title: string;
  readonly speaks: string;
  /** Whether these very lines were run against cortex, with which version, and how. */
  readonly tried: string;
  readonly snippets: (input: RecipeInput) => readonly Snippet[];
  /** Why something is as it is, a sentence each. */
  readonly notes: readonly string[];
  readonly launch?: (input: RecipeInput) => LaunchPlan;
}

/** Where a gateway wants no key, clients still want one. */
export const KEY_PLACEHOLDER = 'none';

/** What docs/clients.md is written with. */
export const exampleInput: RecipeInput = {
  url: 'http://127.0.0.1:31313',
  model: 'qwen3-8b',
  context: 32_768,
  output: 32_768,
  apiKey: KEY_PLACEHOLDER,
};

export function exportLines(env: Readonly<Record<string, string | null>>): string {
  const lines = Object.entries(env).map(([name, value]) =>
    value === null ? `unset ${name}` : `export ${name}=${quoteForShell(value)}`,
  );
  return lines.join('\n');
}
