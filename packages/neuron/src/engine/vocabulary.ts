import { AppError } from 'cortex-core/wire/errors';
import type { TokenizeOptions } from 'cortex-core/wire/inference';
import { type LlamaApi, LlamaVocabType } from '../libllama/bindings.gen.ts';
import type { Piece } from './text-stream.ts';

/** A model's tokens. Reads native memory of the model: not to be used after the model is freed. */
export interface Vocabulary {
  readonly address: bigint;
  readonly size: number;
  /** Every token id that ends a generation, ascending. */
  readonly eogTokens: readonly number[];
  isEog(token: number): boolean;
  pieceOf(token: number): Piece;
  /** See ModelFacts.longestPieceBytes. Reads every token. */
  longestPieceBytes(): number | null;
  tokenize(text: string, options: TokenizeOptions): Int32Array;
  /** Special tokens are rendered. Errors: `invalid_request` for an id outside the vocabulary. */
  detokenize(tokens: Int32Array): string;
}

export function readVocabulary(api: LlamaApi, model: bigint): Vocabulary {
  const address = api.llama_model_get_vocab(model) as bigint;
  const size = api.llama_vocab_n_tokens(address);
  const eog = new Set<number>();
  for (let token = 0; token < size; token++) if (api.llama_vocab_is_eog(address, token)) eog.add(token);
  const pieces: (Piece | undefined)[] = new Array(size);
  let scratch = new Uint8Array(256);

  const readPiece = (token: number): Piece => {
    let length = api.llama_token_to_piece(address, token, scratch, scratch.length, 0, true);
    if (length < 0) {
      scratch = new Uint8Array(-length);
      length = api.llama_token_to_piece(address, token, scratch, scratch.length, 0, true);
    }
    return toPiece(scratch.slice(0, Math.max(length, 0)));
  };
  return {
    address,
    size,
    eogTokens: [...eog],
    isEog: (token) => eog.has(token),
    pieceOf(token) {
      pieces[token] ??= readPiece(token);
      return pieces[token];
    },
    longestPieceBytes: () => longestPieceBytes(api, address, size),
    tokenize: (text, options) => tokenize(api, address, text, options),
    detokenize(tokens) {
      checkTokens(tokens, size);
      return detokenize(api, address, tokens);
    },
  };
}

/** Errors: `invalid_request`; an id outside the vocabulary would abort the process inside libllama. */
export function checkTokens(tokens: Int32Array, vocabSize: number): void {
  if (!(tokens instanceof Int32Array)) {
    throw new AppError('invalid_request', 'token ids come in an Int32Array', { param: 'tokens' });
  }
  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index] as number;
    if (token < 0 || token >= vocabSize) {
      throw new AppError(
        'invalid_request',
        `token ${token} at position ${index} is outside the vocabulary of ${vocabSize} tokens`,
        { param: 'tokens' },
      );
    }
  }
}

/** These two split a text and keep all of it; the others normalise, strip or skip. */
const lossless: readonly number[] = [
  LlamaVocabType.LLAMA_VOCAB_TYPE_SPM,
  LlamaVocabType.LLAMA_VOCAB_TYPE_BPE,
];

function longestPieceBytes(api: LlamaApi, vocab: bigint, size: number): number | null {
  if (!lossless.includes(api.llama_vocab_type(vocab))) return null;
  const none = new Uint8Array(0);
  let longest = 1;
  for (let token = 0; token < size; token++) {
    // Without room it answers with the negative of what it wanted (llama.h).
    longest = Math.max(longest, -api.llama_token_to_piece(vocab, token, none, 0, 0, true));
  }
  return longest;
}

export function toPiece(bytes: Uint8Array): Piece {
  try {
    return { bytes, text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { bytes, text: null };
  }
}

function tokenize(api: LlamaApi, vocab: bigint, text: string, options: TokenizeOptions): Int32Array {
  const bytes = new TextEncoder().encode(text);
  let tokens = new Int32Array(bytes.length + 8);
  const run = (): number =>
    api.llama_tokenize(
      vocab,
      bytes,
      bytes.length,
      tokens,
      tokens.length,
      options.addSpecial,
      options.parseSpecial,
    );
  let count = run();
  if (count < 0) {
    tokens = new Int32Array(-count);
    count = run();
  }
  return tokens.slice(0, count);
}

function detokenize(api: LlamaApi, vocab: bigint, tokens: Int32Array): string {
  let bytes = new Uint8Array(tokens.length * 8 + 16);
  const run = (): number =>
    api.llama_detokenize(vocab, tokens, tokens.length, bytes, bytes.length, false, true);
  let length = run();
  if (length < 0) {
    bytes = new Uint8Array(-length);
    length = run();
  }
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes.subarray(0, length));
}
