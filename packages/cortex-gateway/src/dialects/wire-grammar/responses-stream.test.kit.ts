import assert from 'node:assert/strict';
import type { ResponseObject } from 'cortex-core/wire/responses';
import { SseParser } from 'cortex-core/wire/sse';
import type { JsonObject } from '../request-body.ts';
import { ResponsesGrammar } from './responses-grammar.ts';

export interface CheckedStream {
  readonly events: readonly JsonObject[];
  /** Of the last event. */
  readonly response: ResponseObject;
}

/** All of a stream; fails where it breaks the grammar. */
export function checkResponsesStream(bytes: Uint8Array): CheckedStream {
  const grammar = new ResponsesGrammar();
  grammar.push(bytes);
  assert.equal(grammar.end(), null, Buffer.from(bytes).toString());
  const events = new SseParser().push(bytes).map(({ data }) => JSON.parse(data) as JsonObject);
  return { events, response: events.at(-1)?.response as ResponseObject };
}
