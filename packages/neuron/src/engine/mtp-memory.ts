/**
 * The memory of a context together with that of its layers for prediction: cut, cleared, saved and restored
 * as one, so that a prefix that is used again brings their cells along.
 *
 * A saved state is the context's own, followed by the layers' cells, the hidden state that the next position
 * needs, and a footer: bytes of the cells, position at which they begin, a mark. An owner without such layers
 * does not take it; one without a footer is taken, and the layers begin behind it.
 */
import type { KvMemory } from './kv-memory.ts';
import type { MtpDraft } from './mtp-draft.ts';

type Saved = ReturnType<MtpDraft['save']>;

const mark = 0x4d545031;
const footerBytes = 16;

export function withMtp(kv: KvMemory, mtp: MtpDraft): KvMemory {
  // The sequence of forwardLogits is beyond the slots and is not followed.
  const isFollowed = (sequence: number): boolean => sequence < mtp.slots;
  const tailBytes = (cells: number): number => cells + mtp.stateLength * 4 + footerBytes;
  return {
    ...kv,
    truncate(sequence, length) {
      const isCut = kv.truncate(sequence, length);
      if (isCut && isFollowed(sequence)) mtp.truncate(sequence, length);
      return isCut;
    },
    takeBack(sequence, length) {
      const isCut = kv.takeBack(sequence, length);
      if (isCut && isFollowed(sequence)) mtp.truncate(sequence, length);
      return isCut;
    },
    clear(sequence) {
      kv.clear(sequence);
      if (isFollowed(sequence)) mtp.clear(sequence);
    },
    sizeOf(sequence) {
      const own = kv.sizeOf(sequence);
      return own === 0 || !isFollowed(sequence) ? own : own + tailBytes(mtp.sizeOf(sequence));
    },
    save(sequence) {
      if (!isFollowed(sequence)) return kv.save(sequence);
      const saved = mtp.save(sequence);
      const spare = tailBytes(saved.cells.length);
      const state = kv.save(sequence, spare);
      if (state !== null) writeTail(state.data.subarray(state.bytes - spare), saved);
      return state;
    },
    restore(sequence, data) {
      if (!isFollowed(sequence)) return kv.restore(sequence, data);
      const tail = readTail(data, mtp.stateLength);
      const isTaken = kv.restore(sequence, tail === null ? data : data.subarray(0, tail.at));
      if (isTaken) mtp.restore(sequence, kv.lengthOf(sequence), tail?.saved ?? null);
      else mtp.clear(sequence);
      return isTaken;
    },
  };
}

function writeTail(tail: Uint8Array, { cells, origin, state }: Saved): void {
  tail.set(cells);
  tail.set(new Uint8Array(state.buffer, state.byteOffset, state.byteLength), cells.length);
  const footer = viewOf(tail.subarray(tail.length - footerBytes));
  footer.setFloat64(0, cells.length, true);
  footer.setUint32(8, origin, true);
  footer.setUint32(12, mark, true);
}

function readTail(
  data: Uint8Array,
  stateLength: number,
): { readonly at: number; readonly saved: Saved } | null {
  const footerAt = data.length - footerBytes;
  const stateAt = footerAt - stateLength * 4;
  if (stateAt < 0) return null;
  const footer = viewOf(data.subarray(footerAt));
  const at = stateAt - footer.getFloat64(0, true);
  if (footer.getUint32(12, true) !== mark || !Number.isInteger(at) || at < 0 || at > stateAt) return null;
  // Copied: floats lie at multiples of 4.
  const state = new Float32Array(data.slice(stateAt, footerAt).buffer);
  return { at, saved: { cells: data.subarray(at, stateAt), origin: footer.getUint32(8, true), state } };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
