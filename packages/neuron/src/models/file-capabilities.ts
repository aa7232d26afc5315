/**
 * What models on disk can do, without loading them: from the header of the GGUF, once per file. A listing
 * asks for all of them every few seconds, and a header with its vocabulary is megabytes.
 */
import { stat } from 'node:fs/promises';
import type { ModelFacts } from 'cortex-core/wire/inference';
import { type Capabilities, capabilitiesOf } from '../chat/capabilities.ts';
import { findInfillTokens, infillSpellings } from '../chat/infill.ts';
import { ChatTemplate } from '../chat/template.ts';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';

const filesMax = 4096;
const watched: ReadonlySet<string> = new Set(infillSpellings.flat().filter((text) => text !== null));
const unknown: Capabilities = { capabilities: ['text'], tool_call: false, reasoning: false };

export class FileCapabilities {
  readonly #known = new Map<string, Promise<Capabilities>>();

  /** Of the first file; what cannot be read is listed as a text model, and its load says why. */
  async of(files: readonly string[]): Promise<Capabilities> {
    const [file] = files;
    if (file === undefined) return unknown;
    try {
      const { mtimeMs, size } = await stat(file);
      const key = `${file} ${mtimeMs} ${size}`;
      const known = this.#known.get(key);
      if (known !== undefined) return await known;
      if (this.#known.size >= filesMax) this.#known.clear();
      const reading = read(file);
      this.#known.set(key, reading);
      return await reading;
    } catch {
      return unknown;
    }
  }
}

async function read(file: string): Promise<Capabilities> {
  const header = await readGgufHeader(file, watched);
  const metadata: Record<string, string> = {};
  for (const [key, value] of header.metadata) metadata[key] = String(value);
  const namedTemplates: Record<string, string> = {};
  for (const [key, value] of Object.entries(metadata)) {
    const name = /^tokenizer\.chat_template\.(.+)$/.exec(key)?.[1];
    if (name !== undefined) namedTemplates[name] = value;
  }
  const template = new ChatTemplate(
    {
      chatTemplate: metadata['tokenizer.chat_template'] ?? null,
      namedTemplates,
      bosToken: null,
      eosToken: null,
      addBos: false,
    },
    { modelId: file, hasChatMl: async () => false, now: () => new Date(0) },
  );
  const infill = await findInfillTokens(metadata, async (text) => (header.foundTokens?.has(text) ? 0 : null));
  return capabilitiesOf({ pooling: poolingOf(header), template: template.look(), infill: infill !== null });
}

const poolings: Readonly<Record<number, ModelFacts['pooling']>> = {
  1: 'mean',
  2: 'cls',
  3: 'last',
  4: 'rank',
};

/** As the engine will decide: an encoder whose file names no pooling takes the mean. */
function poolingOf({ metadata }: GgufHeader): ModelFacts['pooling'] {
  const architecture = String(metadata.get('general.architecture') ?? '');
  const declared = Number(metadata.get(`${architecture}.pooling_type`) ?? 0);
  const isEncoder =
    metadata.get(`${architecture}.attention.causal`) === false || architecture === 'gemma-embedding';
  return poolings[declared] ?? (isEncoder ? 'mean' : 'none');
}
