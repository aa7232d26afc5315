import type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';

export type { OpenRequest, UpstreamAnswer } from '../upstream/neuron-client.ts';

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
  /** Idempotent. */
  release(): void;
}
