/** What the dialect needs of the store: the answers of one caller. */
import type { ResponseObject } from 'cortex-core/wire/responses';
import type { JsonObject } from '../request-body.ts';

export interface StoredResponse {
  readonly response: ResponseObject;
  /** What the request itself brought, with ids; what it built on is behind `previous_response_id`. */
  readonly input: readonly JsonObject[];
}

export interface CallerStore {
  /** False: nothing is kept, whatever a request says. */
  readonly keeps: boolean;
  /** Counts as a use. Null: unknown, expired, deleted, or somebody else's. */
  find(id: string): StoredResponse | null;
  /** An item of a stored input or output. */
  findItem(id: string): JsonObject | null;
  put(stored: StoredResponse): void;
  /** Why `id` may not be there, as a sentence. */
  whyMissing(id: string): string;
}
