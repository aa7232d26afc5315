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
  const bytes = Buffer.alloc(vector.length * 4);
  for (let at = 0; at < vector.length; at++) bytes.writeFloatLE(vector[at] ?? 0, at * 4);
  return bytes.toString('base64');
}

/** Numbers that become text at once: a few milliseconds' work. */
const pieceNumbersMax = 16_384;

export interface EmbeddingList {
  /** Of length 1. */
  readonly vectors: readonly Float32Array[];
  readonly format: 'float' | 'base64';
  readonly model: string;
  readonly promptTokens: number;
}

/** The answer as JSON in pieces, none of more than one vector beyond `pieceNumbersMax` numbers. */
export function* toEmbeddingPieces(list: EmbeddingList): Generator<string> {
  const { vectors, format, model, promptTokens } = list;
  let piece = '{"object":"list","data":[';
  let numbers = 0;
  for (const [at, vector] of vectors.entries()) {
    piece += `${at === 0 ? '' : ','}${JSON.stringify(toEmbedding(at, vector, format))}`;
    numbers += vector.length;
    if (numbers < pieceNumbersMax) continue;
    yield piece;
    piece = '';
    numbers = 0;
  }
  const usage = { prompt_tokens: promptTokens, total_tokens: promptTokens };
  yield `${piece}],"model":${JSON.stringify(model)},"usage":${JSON.stringify(usage)}}`;
}
