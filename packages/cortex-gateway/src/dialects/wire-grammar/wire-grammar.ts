/** Checks a stream as a client would read it: bytes in, the first rule that was broken out. */
import { type SseEvent, SseParser } from 'cortex-core/wire/sse';
import type { JsonObject } from '../request-body.ts';

export interface WireGrammar {
  /** Never throws. */
  push(bytes: Uint8Array): void;
  /** The stream has ended. The name of the first rule that was broken; null = none. */
  end(): string | null;
}

/** A single event beyond this is not read; nothing is judged from then on. */
const eventBytesMax = 4 * 1024 * 1024;

/** What the grammars share: events out of bytes, and that only the first fault counts. */
export abstract class SseGrammar implements WireGrammar {
  readonly #parser = new SseParser(eventBytesMax);
  #fault: string | null = null;
  #isBlind = false;

  push(bytes: Uint8Array): void {
    if (this.#isBlind || this.#fault !== null) return;
    try {
      for (const event of this.#parser.push(bytes)) {
        this.#fault ??= this.check(event);
      }
    } catch {
      this.#isBlind = true;
    }
  }

  end(): string | null {
    if (this.#isBlind) return null;
    return this.#fault ?? this.checkEnd();
  }

  protected abstract check(event: SseEvent): string | null;
  protected abstract checkEnd(): string | null;
}

export function jsonOf(data: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(data);
    return objectOf(value);
  } catch {
    return null;
  }
}

export function objectOf(value: unknown): JsonObject | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
}
