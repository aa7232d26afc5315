/**
 * Says whether two machines hold the same weights.
 *
 * Problem: an answer that one node began may go on at another only over the same weights. To hash a file of
 *          40 GB whole takes a minute, and a name says nothing.
 * Design:  SHA-256 over each file's size, its whole header (metadata, vocabulary, tensor table) and a block
 *          from the middle of every tensor; adapters with their scale too. Another quantisation, a fine-tune,
 *          a merged adapter or a mended tokenizer change it; a copy at another path does not. Read beside the
 *          load, which reads the same blocks.
 * Limits:  it is no proof against someone who wants two files to look alike, and a block that a disk lost
 *          between two samples goes unseen. 4 KiB a tensor; of more than 4096 tensors every other, and so on.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { ModelFacts } from 'cortex-core/wire/inference';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';

const blockBytes = 4096;
const headerPieceBytes = 1024 * 1024;
const samplesMax = 4096;

export interface WeightsFiles {
  /** All shards, in order. */
  readonly files: readonly string[];
  readonly lora: readonly { readonly file: string; readonly scale: number }[];
}

/** Null when a file cannot be read to the end: the load itself says what is wrong with it. */
export async function weightsDigest({ files, lora }: WeightsFiles): Promise<string | null> {
  const hash = createHash('sha256');
  try {
    for (const file of files) await addFile(hash, file);
    for (const { file, scale } of lora) {
      hash.update(`adapter ${scale}\n`);
      await addFile(hash, file);
    }
  } catch {
    return null;
  }
  return hash.digest('hex');
}

/** Says whether two loads turn messages into the same prompt. */
export function templateDigest({
  chatTemplate,
  namedTemplates,
}: Pick<ModelFacts, 'chatTemplate' | 'namedTemplates'>): string {
  const named = Object.entries(namedTemplates).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([chatTemplate, named]))
    .digest('hex');
}

async function addFile(hash: Hash, file: string): Promise<void> {
  const header = await readGgufHeader(file);
  const handle = await open(file, 'r');
  try {
    hash.update(`file ${header.fileBytes}\n`);
    for (let at = 0; at < header.dataOffset; at += headerPieceBytes) {
      await addBytes(hash, handle, at, Math.min(headerPieceBytes, header.dataOffset - at));
    }
    for (const { start, length } of samplesOf(header)) await addBytes(hash, handle, start, length);
  } finally {
    await handle.close();
  }
}

function samplesOf({ tensors, dataOffset, fileBytes }: GgufHeader): { start: number; length: number }[] {
  const every = Math.ceil(tensors.length / samplesMax);
  const chosen = tensors.filter((_, at) => at % every === 0);
  return chosen.map((tensor) => {
    const start = dataOffset + tensor.offset;
    const bytes = tensor.bytes ?? Math.min(blockBytes, fileBytes - start);
    const skipped = Math.floor(Math.max(0, bytes - blockBytes) / 2);
    return { start: start + skipped, length: Math.min(blockBytes, bytes) };
  });
}

async function addBytes(hash: Hash, handle: FileHandle, start: number, length: number): Promise<void> {
  const bytes = Buffer.allocUnsafe(length);
  for (let have = 0; have < length; ) {
    const { bytesRead } = await handle.read(bytes, have, length - have, start + have);
    if (bytesRead === 0) throw new Error('the file ends early');
    have += bytesRead;
  }
  hash.update(bytes);
}
