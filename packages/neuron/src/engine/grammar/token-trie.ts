/** A vocabulary as a tree of bytes, laid flat in walking order: a subtree is skipped by one jump. */
export interface TokenTrie {
  readonly vocabSize: number;
  /** Nodes in walking order: the byte that leads to it, its depth from 1, the node after its subtree. */
  readonly bytes: Uint8Array;
  readonly depths: Uint16Array;
  readonly skips: Int32Array;
  /** Tokens that end at node i: `tokens[starts[i]]` to `tokens[starts[i + 1] - 1]`. */
  readonly starts: Int32Array;
  readonly tokens: Int32Array;
  readonly depthMax: number;
}

const tokenBytesMax = 4096;

/** NUL is no text, also where a grammar would let any character come: libllama's sampler has it so. */
export function hasText(bytes: Uint8Array): boolean {
  return bytes.length > 0 && bytes[0] !== 0;
}

/** `bytesOf` a token; tokens without text, or of more than `tokenBytesMax` bytes, are left out. */
export function buildTokenTrie(vocabSize: number, bytesOf: (token: number) => Uint8Array): TokenTrie {
  const texts: (readonly [string, number])[] = [];
  let nodesMax = 0;
  for (let token = 0; token < vocabSize; token++) {
    const bytes = bytesOf(token);
    if (!hasText(bytes) || bytes.length > tokenBytesMax) continue;
    texts.push([String.fromCharCode(...bytes), token]);
    nodesMax += bytes.length;
  }
  texts.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const bytes = new Uint8Array(nodesMax);
  const depths = new Uint16Array(nodesMax);
  const skips = new Int32Array(nodesMax);
  const starts = new Int32Array(nodesMax + 1);
  const tokens = new Int32Array(texts.length);
  const open: number[] = [];
  let [count, placed, last, depthMax] = [0, 0, '', 0];
  const closeTo = (depth: number): void => {
    while (open.length > depth) skips[open.pop() as number] = count;
  };
  for (const [text, token] of texts) {
    let shared = 0;
    while (shared < last.length && last.charCodeAt(shared) === text.charCodeAt(shared)) shared++;
    closeTo(shared);
    for (let depth = shared; depth < text.length; depth++) {
      bytes[count] = text.charCodeAt(depth);
      depths[count] = depth + 1;
      starts[count] = placed;
      open.push(count++);
    }
    tokens[placed++] = token;
    starts[count] = placed;
    depthMax = Math.max(depthMax, text.length);
    last = text;
  }
  closeTo(0);
  return {
    vocabSize,
    bytes: bytes.slice(0, count),
    depths: depths.slice(0, count),
    skips: skips.slice(0, count),
    starts: starts.slice(0, count + 1),
    tokens,
    depthMax,
  };
}
