/**
 * An answer as events: what every upstream is read into and every dialect is written from. `AnswerGrammar`
 * checks the grammar:
 *
 *     answer := start (reasoning | text | call | usage)* end | error
 *     call   := call_start call_arguments* call_stop      calls may interleave, text may not stand inside
 *     end    := stop usage* | error
 */
import type { AppError } from 'cortex-core/wire/errors';

export type StopReason = 'end' | 'length' | 'context_full' | 'stop_text' | 'calls' | 'refusal';

export interface AnswerUsage {
  /** All of the prompt, cached or not. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** With reasoning. */
  readonly completionTokens: number;
  readonly reasoningTokens: number;
}

export type AnswerEvent =
  /** The token counts are null where upstream does not tell them before it generates. */
  | {
      readonly type: 'start';
      readonly id: string | null;
      readonly promptTokens: number | null;
      readonly cachedTokens: number | null;
    }
  | { readonly type: 'reasoning'; readonly text: string }
  | { readonly type: 'text'; readonly text: string }
  /** `index` counts the answer's calls from 0. */
  | { readonly type: 'call_start'; readonly index: number; readonly id: string; readonly name: string }
  /** Pieces of JSON text. */
  | { readonly type: 'call_arguments'; readonly index: number; readonly text: string }
  | { readonly type: 'call_stop'; readonly index: number }
  | { readonly type: 'usage'; readonly usage: AnswerUsage }
  /** `stopText`: the stop text that matched. */
  | { readonly type: 'stop'; readonly reason: StopReason; readonly stopText: string | null }
  | { readonly type: 'error'; readonly error: AppError };
