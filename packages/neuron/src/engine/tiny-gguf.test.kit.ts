/**
 * Writes GGUF files of a few kilobytes with random weights: models of kinds that no small download has. The
 * weights come from a seed, so two files of one seed differ only in what is asked to differ.
 */
import { writeFileSync } from 'node:fs';

export interface Tensor {
  readonly dims: readonly number[];
  readonly values: Float32Array;
}

const types = { u32: 4, f32: 6, bool: 7, string: 8, array: 9 } as const;

export const special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];
const words = 'the a cat dog sat ran on over mat moon of is what who paris france capital blue sky sea'.split(
  ' ',
);
export const vocabSize = special.length + words.length;

/** `metadata`: entries as `numberEntry` and its like make them; the tokenizer's are added, with `ownWords`. */
export function writeGguf(
  file: string,
  metadata: readonly Buffer[],
  tensors: ReadonlyMap<string, Tensor>,
  ownWords: readonly string[] = words,
): void {
  const entries = [...metadata, ...tokenizerEntries(ownWords)];
  let offset = 0;
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  for (const [name, { dims, values }] of tensors) {
    infos.push(text(name), u32(dims.length), ...dims.map(u64), u32(0), u64(offset));
    const bytes = pad(Buffer.from(values.buffer, values.byteOffset, values.byteLength));
    data.push(bytes);
    offset += bytes.length;
  }
  const head = [Buffer.from('GGUF'), u32(3), u64(tensors.size), u64(entries.length), ...entries, ...infos];
  writeFileSync(file, Buffer.concat([pad(Buffer.concat(head)), ...data]));
}

/** Tensors in the order they are added. */
export class TensorMap extends Map<string, Tensor> {
  add(name: string, dims: readonly number[], fill: () => number): void {
    const values = new Float32Array(dims.reduce((product, dim) => product * dim, 1));
    this.set(name, { dims, values: values.map(fill) });
  }
}

export function numberEntry(key: string, value: number): Buffer {
  return Buffer.concat([text(key), u32(types.u32), u32(value)]);
}

export function numbersEntry(key: string, values: readonly number[]): Buffer {
  return Buffer.concat([
    text(key),
    u32(types.array),
    u32(types.u32 + 1),
    u64(values.length),
    ...values.map(u32),
  ]);
}

export function floatEntry(key: string, value: number): Buffer {
  return Buffer.concat([text(key), u32(types.f32), f32(value)]);
}

export function textEntry(key: string, value: string): Buffer {
  return Buffer.concat([text(key), u32(types.string), text(value)]);
}

export function flagEntry(key: string, value: boolean): Buffer {
  return Buffer.concat([text(key), u32(types.bool), Buffer.of(value ? 1 : 0)]);
}

function tokenizerEntries(ownWords: readonly string[]): Buffer[] {
  const tokens = [...special, ...ownWords.map((word) => `\u2581${word}`)];
  const list = [u32(types.string), u64(tokens.length), ...tokens.map(text)];
  const kinds = [
    u32(types.u32 + 1),
    u64(tokens.length),
    ...tokens.map((_, at) => u32(at < special.length ? 3 : 1)),
  ];
  return [
    textEntry('tokenizer.ggml.model', 'bert'),
    Buffer.concat([text('tokenizer.ggml.tokens'), u32(types.array), ...list]),
    Buffer.concat([text('tokenizer.ggml.token_type'), u32(types.array), ...kinds]),
    numberEntry('tokenizer.ggml.token_type_count', 2),
    numberEntry('tokenizer.ggml.unknown_token_id', 1),
    numberEntry('tokenizer.ggml.bos_token_id', 2),
    numberEntry('tokenizer.ggml.eos_token_id', 3),
    numberEntry('tokenizer.ggml.cls_token_id', 2),
    numberEntry('tokenizer.ggml.seperator_token_id', 3),
    numberEntry('tokenizer.ggml.padding_token_id', 0),
    numberEntry('tokenizer.ggml.mask_token_id', 4),
  ];
}

/** mulberry32, -1..1. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

function u32(value: number): Buffer {
  return Buffer.from(Uint32Array.of(value).buffer);
}

function u64(value: number): Buffer {
  return Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
}

function f32(value: number): Buffer {
  return Buffer.from(Float32Array.of(value).buffer);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function pad(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
}
