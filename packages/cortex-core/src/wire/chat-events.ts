/** What a chat model says, told apart: spoken between the parsers of chat formats and the dialects. */

/**
 * Texts and arguments arrive in pieces; neighbours of one kind belong together. A call is a start, any number
 * of arguments pieces and an end; `index` counts the turn's calls from 0, and calls do not interleave.
 */
export type ChatEvent =
  | { readonly kind: 'reasoning'; readonly text: string }
  | { readonly kind: 'content'; readonly text: string }
  | { readonly kind: 'call_start'; readonly index: number; readonly id: string; readonly name: string }
  /** JSON text. All pieces of a call that the model finished make one JSON value. */
  | { readonly kind: 'call_arguments'; readonly index: number; readonly text: string }
  | { readonly kind: 'call_end'; readonly index: number };
