/** What a decision is asked. Only `model` has to be there. */
export interface RouteRequest {
  /** As the client spelled it. */
  readonly model: string;
  /** Estimated; absent = next to nothing. */
  readonly promptTokens?: number;
  /** Prompt tokens that nodes are believed to have in their prefix cache: what affinity is worth. */
  readonly cached?: readonly CachedPrefix[];
  /** Only a replica that serves right now will do. */
  readonly mustServeNow?: boolean;
  /** false = a further replica is out of the question: the request failed over, or has waited already. */
  readonly mayReplicate?: boolean;
  /** Whether that replica takes another request now, running or in its own queue; absent = each does. */
  readonly hasSlot?: (node: string, model: string) => boolean;
  /** Nodes that already failed this request. */
  readonly exclude?: ReadonlySet<string>;
  /** The fleet's clock; absent = idle times and loads under way count for nothing. */
  readonly nowMs?: number;
}

export interface CachedPrefix {
  readonly node: string;
  readonly tokens: number;
}
