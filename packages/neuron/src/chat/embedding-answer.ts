/** Vectors as clients of /v1/embeddings read them. Pure. */

/** The first `dimensions` numbers (Matryoshka models are made to be cut), scaled to length 1. */
export function toUnitVector(vector: Float32Array, dimensions: number): Float32Array {
  const cut = vector.slice(0, dimensions);
  let sum = 0;
  for (const value of cut) sum += value * value;
  const norm = Math.sqrt(sum);
  return norm === 0 ? cut : cut.map((value) => value / norm);
}

/** `base64`: little-endian 32-bit floats, what OpenAI's SDKs ask for by default. */
export function toEmbedding(index: number, vector: Float32Array, format: 'float' | 'base64') {
  return {
    object: 'embedding' as const,
    index,
    embedding: format === 'float' ? [...vector] : toBase64(vector),
  };
}

function toBase64(vector: Float32Array): string {
  const bytes = new Uint8Array(vector.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [at, value] of vector.entries()) view.setFloat32(at * 4, value, true);
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
