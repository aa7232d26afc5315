/** Fill-in-the-middle: the special tokens that models know for it, and the prompt made of them. */

export interface InfillTokens {
  readonly prefix: number;
  readonly suffix: number;
  /** Null where the model goes on after the prefix. */
  readonly middle: number | null;
  readonly order: 'prefix_first' | 'suffix_first';
}

/** As the tokenizers of these families spell them; the first whose every text is one token is taken. */
export const infillSpellings = [
  ['<|fim_prefix|>', '<|fim_suffix|>', '<|fim_middle|>'], // Qwen, CodeGemma
  ['<fim_prefix>', '<fim_suffix>', '<fim_middle>'], // StarCoder, Granite
  ['<fim-prefix>', '<fim-suffix>', '<fim-middle>'], // SantaCoder
  ['<｜fim▁begin｜>', '<｜fim▁hole｜>', '<｜fim▁end｜>'], // DeepSeek
  ['<|code_prefix|>', '<|code_suffix|>', '<|code_middle|>'], // GLM
  ['▁<PRE>', '▁<SUF>', '▁<MID>'], // CodeLlama
  ['<PRE>', '<SUF>', '<MID>'],
  ['[PREFIX]', '[SUFFIX]', null], // Codestral: the suffix comes first
] as const;

const metadataKeys = ['fim_pre_token_id', 'fim_suf_token_id', 'fim_mid_token_id'] as const;

/**
 * `idOf`: the id of a text that is one token of the vocabulary, else null. Ids in the file's metadata count
 * before spellings. Null = the model was not made for infill.
 */
export async function findInfillTokens(
  metadata: Readonly<Record<string, string>>,
  idOf: (text: string) => Promise<number | null>,
): Promise<InfillTokens | null> {
  const [prefix, suffix, middle] = metadataKeys.map((key) => {
    const id = metadata[`tokenizer.ggml.${key}`];
    return id === undefined ? null : Number(id);
  });
  if (prefix != null && suffix != null && middle != null) {
    return { prefix, suffix, middle, order: 'prefix_first' };
  }
  for (const spelling of infillSpellings) {
    const ids = [];
    for (const text of spelling) ids.push(text === null ? null : await idOf(text));
    const [pre, suf, mid] = ids;
    if (pre == null || suf == null) continue;
    if (spelling[2] === null) return { prefix: pre, suffix: suf, middle: null, order: 'suffix_first' };
    if (mid != null) return { prefix: pre, suffix: suf, middle: mid, order: 'prefix_first' };
  }
  return null;
}

/** `begin`: the beginning-of-sequence token where the model wants one. */
export function toInfillPrompt(
  { prefix, suffix, middle, order }: InfillTokens,
  begin: Int32Array,
  before: Int32Array,
  after: Int32Array,
): Int32Array {
  const end = middle === null ? [] : [middle];
  const body =
    order === 'prefix_first'
      ? [prefix, ...before, suffix, ...after, ...end]
      : [suffix, ...after, prefix, ...before, ...end];
  return Int32Array.from([...begin, ...body]);
}
