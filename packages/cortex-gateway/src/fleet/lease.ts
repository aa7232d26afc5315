import type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';

export type { UpstreamAnswer } from '../upstream/neuron-client.ts';

/** Who asks, for the order of those that wait. */
export interface RequestTerms {
  /** Who pays. */
  readonly key: string;
  /** One conversation or agent of theirs. */
  readonly session: string;
  /** A higher number goes first. */
  readonly priority: number;
  readonly promptTokens: number;
}

/** The right to send one request to one model on one node; while it is held the model is not evicted. */
export interface Lease {
  readonly node: string;
  readonly model: string;
  /** The id to put into the request. */
  readonly wireId: string;
  readonly why: string;
  /** The request waited for a load. */
  readonly cold: boolean;
  /** Sends the request to the node. */
  readonly open: (request: OpenRequest) => Promise<UpstreamAnswer>;
  /** Counts the tokens of the answer for the asker's share. */
  charge(answerTokens: number): void;
  /** Idempotent. */
  release(): void;
}
