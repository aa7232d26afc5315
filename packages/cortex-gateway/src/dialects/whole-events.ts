/**
 * Passes whole server-sent events and holds the rest of the last one, so that an error event or a keep-alive
 * never lands in the middle of one. The bytes over all are those of upstream.
 */

/** An event longer than this is passed on in pieces rather than held. */
const heldBytesMax = 1024 * 1024;
const nothing = Buffer.alloc(0);

export class WholeEvents {
  #held: Buffer = nothing;

  /** Nothing is held. */
  get isBetween(): boolean {
    return this.#held.length === 0;
  }

  push(chunk: Uint8Array): Uint8Array {
    const all = this.#held.length === 0 ? asBuffer(chunk) : Buffer.concat([this.#held, chunk]);
    const cut = all.length > heldBytesMax ? all.length : boundaryOf(all);
    // what is held for long must not hold the chunk it came in
    this.#held = cut === all.length ? nothing : Buffer.from(all.subarray(cut));
    return all.subarray(0, cut);
  }

  /** What was held, which is held no more. */
  drop(): Uint8Array {
    const rest = this.#held;
    this.#held = nothing;
    return rest;
  }
}

/** Offset behind the last empty line. */
function boundaryOf(bytes: Buffer): number {
  const lf = bytes.lastIndexOf('\n\n');
  const crlf = bytes.lastIndexOf('\r\n\r\n');
  const cr = bytes.lastIndexOf('\r\r');
  return Math.max(lf === -1 ? 0 : lf + 2, crlf === -1 ? 0 : crlf + 4, cr === -1 ? 0 : cr + 2);
}

function asBuffer(chunk: Uint8Array): Buffer {
  return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}
