export interface DraftRequest {
  readonly slot: number;
  /** Prompt and answer so far, the last token not yet computed by the model. */
  readonly tokens: Int32Array;
  /** Guesses wanted at most. */
  readonly max: number;
}

/** Who guesses what a model will say where its own text suggests nothing. Guesses are only guesses. */
export interface DraftSource {
  /** What would come next; empty where it is unsure or not ready. */
  propose(request: DraftRequest): Int32Array;
  /** A sequence runs in another slot now; not told where what is held moves with the model's cells. */
  moved?(from: number, to: number): void;
  /** Of weights that are not the model's own. */
  readonly weightsBytes: number;
  /** Growth of this process's own memory while its context was made. */
  readonly contextBytes: number;
  /** Idempotent. Before the model is closed. */
  close(): void;
}
