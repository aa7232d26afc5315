/** How an answer of the fleet ended. */
import assert from 'node:assert/strict';
import { SseParser } from 'cortex-core/wire/sse';
import type { LocalFleet } from './local-fleet.ts';

export async function answers(fleet: LocalFleet, model: string): Promise<void> {
  const { status, text } = await fleet.ask(model);
  assert.equal(status, 200, text);
  assert.match(text, /Paris/);
}

/** `cut`: neither `[DONE]` behind a finish reason, nor an error event. */
export type StreamEnd =
  | { readonly kind: 'whole' | 'cut' }
  | { readonly kind: 'error'; readonly code: string };

export interface StreamReader {
  /** The first token is here. */
  readonly started: Promise<void>;
  readonly ended: Promise<StreamEnd>;
}

export function readStream(response: Response): StreamReader {
  let start = (): void => {};
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  return { started, ended: read(response, start) };
}

async function read(response: Response, onToken: () => void): Promise<StreamEnd> {
  const parser = new SseParser();
  let isFinished = false;
  let end: StreamEnd = { kind: 'cut' };
  try {
    for await (const chunk of response.body ?? []) {
      for (const { data } of parser.push(chunk)) {
        if (data.includes('"content":"')) onToken();
        if (/"finish_reason":"/.test(data)) isFinished = true;
        if (data === '[DONE]' && isFinished) end = { kind: 'whole' };
        const { error } = data.startsWith('{') ? (JSON.parse(data) as { error?: { code: string } }) : {};
        if (error !== undefined) end = { kind: 'error', code: error.code };
      }
    }
  } catch (thrown) {
    return { kind: 'error', code: `the connection broke: ${String(thrown)}` };
  } finally {
    onToken();
  }
  return end;
}
