/** What a request asks of the fleet, and what its answer teaches. */

export interface Ask {
  /** As the client spelled it. */
  readonly model: string;
  /** Estimated; absent = next to nothing. */
  readonly promptTokens?: number;
  /** What the prompt's head will be again in later requests; absent = nothing is remembered. */
  readonly affinity?: Affinity | null;
  /** Absent = nobody in particular, of ordinary priority. */
  readonly asker?: Asker;
}

/** Who asks, for the order of those that wait. */
export interface Asker {
  /** Who pays. */
  readonly key: string;
  /** One conversation or agent of theirs. */
  readonly session: string;
  /** A higher number goes first. */
  readonly priority: number;
}

export interface Affinity {
  /** Names the conversation, or only the head of the prompt. */
  readonly key: string;
  /** Tokens of the prompt that the key stands for; null = all of it. */
  readonly headTokens: number | null;
}

/** Measured of one answer. Times in milliseconds; null = not known. */
export interface AnswerFacts {
  readonly promptTokens: number;
  /** null = not told. */
  readonly cachedTokens: number | null;
  readonly completionTokens: number;
  /** As the neuron measured them. */
  readonly prefillMs: number | null;
  readonly decodeMs: number | null;
  /** As the gateway saw them, from the moment of sending. */
  readonly firstTokenMs: number | null;
  readonly totalMs: number;
}
