import koffi from 'koffi';

/** A block of native memory with a stable address that JavaScript reads and writes without copies. */
export interface NativeBlock {
  readonly address: bigint;
  readonly buffer: ArrayBuffer;
  /** Idempotent. The buffer and every view of it must not be touched afterwards. */
  close(): void;
}

/**
 * Memory outside the garbage collector's reach; the caller closes it. Zeroed, unless the caller overwrites it
 * whole anyway.
 */
export function allocateNative(bytes: number, { isZeroed = true } = {}): NativeBlock {
  const size = Math.max(bytes, 8);
  let address: bigint | null = koffi.alloc('uint8', size) as bigint;
  const buffer = koffi.view(address, size);
  if (isZeroed) new Uint8Array(buffer).fill(0);
  return {
    address,
    buffer,
    close() {
      if (address !== null) koffi.free(address);
      address = null;
    },
  };
}

/** A NULL-terminated `const char **`; native memory, the caller closes it. */
export function allocateStrings(texts: readonly string[]): NativeBlock {
  const encoded = texts.map((text) => new TextEncoder().encode(`${text}\0`));
  const tableBytes = (texts.length + 1) * 8;
  const block = allocateNative(encoded.reduce((sum, bytes) => sum + bytes.length, tableBytes));
  const table = new BigUint64Array(block.buffer, 0, texts.length);
  let offset = tableBytes;
  for (const [index, bytes] of encoded.entries()) {
    new Uint8Array(block.buffer, offset, bytes.length).set(bytes);
    table[index] = block.address + BigInt(offset);
    offset += bytes.length;
  }
  return block;
}

/** Native memory of `length` floats as an array; valid as long as the native side keeps it. */
export function viewFloats(address: bigint, length: number): Float32Array {
  return new Float32Array(koffi.view(address, length * 4));
}

export function readFloat(address: bigint): number {
  return koffi.decode.float(address);
}

export function readInt32(address: bigint): number {
  return koffi.decode.int32(address);
}

/** A function that C may call on this thread, during calls that this thread makes. The caller closes it. */
export function registerProgress(onProgress: (fraction: number) => boolean): {
  readonly address: bigint;
  close(): void;
} {
  const type = koffi.pointer(koffi.proto('bool', ['float', 'void *']));
  let address: bigint | null = koffi.register((fraction: number) => onProgress(fraction), type);
  return {
    address,
    close() {
      if (address !== null) koffi.unregister(address);
      address = null;
    },
  };
}

/** A NULL-terminated list of addresses; native memory, the caller closes it. */
export function allocatePointers(addresses: readonly bigint[]): NativeBlock {
  const block = allocateNative((addresses.length + 1) * 8);
  new BigUint64Array(block.buffer).set(addresses);
  return block;
}
