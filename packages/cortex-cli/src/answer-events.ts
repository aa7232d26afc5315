/** What `cortex run` shows of a streamed OpenAI chat answer. Pure: one chunk in, what to print out. */
import { CliError } from './cli-error.ts';

export interface AnswerPart {
  readonly reasoning: string;
  readonly text: string;
  /** `stop`, `length`, ...; null while the answer goes on. */
  readonly finishReason: string | null;
}

interface Chunk {
  readonly error?: { readonly message?: unknown } | string | null;
  readonly choices?: readonly {
    readonly delta?: { readonly content?: unknown; readonly reasoning_content?: unknown };
    readonly finish_reason?: unknown;
  }[];
}

/** Throws the error that the chunk carries. */
export function toAnswerPart(value: unknown): AnswerPart {
  const chunk = (value ?? {}) as Chunk;
  if (chunk.error !== undefined && chunk.error !== null) {
    const message = typeof chunk.error === 'string' ? chunk.error : chunk.error.message;
    throw new CliError(typeof message === 'string' ? message : 'the answer ended with an error');
  }
  const choice = chunk.choices?.[0];
  return {
    reasoning: asText(choice?.delta?.reasoning_content),
    text: asText(choice?.delta?.content),
    finishReason: typeof choice?.finish_reason === 'string' ? choice.finish_reason : null,
  };
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
