/** What Ollama shows of an answer and events do not carry: when it began and where its time went. */
import { SseParser } from 'cortex-core/wire/sse';

interface Facts {
  readonly created?: unknown;
  readonly timings?: {
    readonly queue_ms?: unknown;
    readonly prefill_ms?: unknown;
    readonly decode_ms?: unknown;
  } | null;
}

export class AnswerFacts {
  #parser: SseParser | null = new SseParser();
  /** RFC 3339; of the epoch until upstream has told. */
  createdAt = new Date(0).toISOString();
  /** Nanoseconds; empty until upstream has told. */
  durations: Readonly<Record<string, number>> = {};
  #seen = false;

  /** Only the first event and the one with the timings are parsed. */
  push(chunk: Uint8Array): void {
    try {
      for (const { data } of this.#parser?.push(chunk) ?? []) {
        if (!this.#seen || data.includes('"timings"')) this.take(data);
      }
    } catch {
      this.#parser = null; // an event beyond all measure: who reads the answer says so
    }
  }

  /** One event, or a whole answer. */
  take(data: string): void {
    let facts: Facts | null = null;
    try {
      facts = JSON.parse(data) as Facts | null;
    } catch {
      return; // who reads the answer says so
    }
    this.#seen = true;
    const { created, timings } = facts ?? {};
    if (typeof created === 'number' && created > 0 && created < 1e11) {
      this.createdAt = new Date(created * 1000).toISOString();
    }
    if (timings) this.durations = toDurations(timings);
  }
}

function toDurations(timings: NonNullable<Facts['timings']>): Readonly<Record<string, number>> {
  const queue = toNs(timings.queue_ms);
  const prefill = toNs(timings.prefill_ms);
  const decode = toNs(timings.decode_ms);
  return {
    total_duration: queue + prefill + decode,
    // the wait before the prompt was read; a load of the gateway's is not in it
    load_duration: queue,
    prompt_eval_duration: prefill,
    eval_duration: decode,
  };
}

function toNs(ms: unknown): number {
  return typeof ms === 'number' && ms > 0 ? Math.round(ms * 1e6) : 0;
}
