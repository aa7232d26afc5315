import type { RouteTerms } from '../decide/expected-time.ts';
import type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';

export type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';

import type { Ask } from './ask.ts';
import type { AliasOptions } from './catalogue.ts';

/** The right to send one request to one model on one node; while it is held the model is not evicted. */
export interface Lease {
  readonly node: string;
  readonly model: string;
  /** The id to put into the request. */
  readonly wireId: string;
  readonly why: string;
  /** What an alias says in the request's place. */
  readonly options: AliasOptions | null;
  /** What was expected when it was taken. */
  readonly terms: RouteTerms;
  readonly ask: Ask;
  /** The request waited for a load. */
  readonly cold: boolean;
  /** A provider's own wire, where a client's request may go on as it is; absent = chat alone. */
  readonly native?: 'messages';
  /** Sends the request to the node. */
  readonly open: (request: OpenRequest) => Promise<UpstreamAnswer>;
  /** Counts the tokens of the answer for the asker's share. */
  charge(answerTokens: number): void;
  /** Idempotent. */
  release(): void;
}
