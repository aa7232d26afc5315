/** An answer that comes in one piece. */
import type { UpstreamAnswer } from '../fleet/lease.ts';

export type WholeAnswer =
  | { readonly kind: 'whole'; readonly bytes: Buffer }
  | { readonly kind: 'broken'; readonly cause: unknown }
  | { readonly kind: 'tooLarge' };

const bytesMax = 256 * 1024 * 1024;

/** Reads it to its end. Rejects with the signal's reason only. */
export async function readWhole(answer: UpstreamAnswer, signal: AbortSignal): Promise<WholeAnswer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.chunks) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > bytesMax) return { kind: 'tooLarge' };
    }
  } catch (cause) {
    signal.throwIfAborted();
    return { kind: 'broken', cause };
  }
  return { kind: 'whole', bytes: Buffer.concat(chunks, size) };
}
