/**
 * A conversation as one item that stands for it.
 *
 * Design: the model is asked for a summary behind the conversation. It travels in the item's
 * `encrypted_content`, and a later request that sends the item says it in place of the conversation.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { ResponseUsage } from 'cortex-core/wire/responses';
import type { AnswerEvent, AnswerUsage } from '../inner/answer-event.ts';
import type { InnerTurn } from '../inner/inner-request.ts';
import { toCarried } from './carried-text.ts';
import { toResponseUsage } from './response-object.ts';

export const compactionAsk: InnerTurn = {
  role: 'user',
  parts: [
    {
      type: 'text',
      text:
        'Write a summary of the conversation so far. It will replace the conversation, so keep all that is ' +
        'needed to go on: what was asked, what was decided and done, names, paths, values and results, and ' +
        'what is still open. Answer with the summary alone.',
    },
  ],
};

export interface CompactedResponse {
  readonly id: string;
  readonly object: 'response.compaction';
  readonly created_at: number;
  readonly output: readonly [
    { readonly id: string; readonly type: 'compaction'; readonly encrypted_content: string },
  ];
  readonly usage: ResponseUsage;
}

export interface CompactionDeps {
  readonly newId: (prefix: string) => string;
  readonly nowSecs: () => number;
}

/** Throws where the answer has no text. */
export function toCompacted(events: readonly AnswerEvent[], deps: CompactionDeps): CompactedResponse {
  let text = '';
  let usage: AnswerUsage = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, reasoningTokens: 0 };
  for (const event of events) {
    if (event.type === 'error') throw event.error;
    if (event.type === 'text') text += event.text;
    else if (event.type === 'usage') usage = event.usage;
  }
  if (text.trim() === '') {
    throw new AppError(
      'upstream_malformed_response',
      'the model wrote no summary; try again, or another model',
    );
  }
  return {
    id: deps.newId('resp'),
    object: 'response.compaction',
    created_at: deps.nowSecs(),
    output: [{ id: deps.newId('cmp'), type: 'compaction', encrypted_content: toCarried(text) }],
    usage: toResponseUsage(usage),
  };
}
