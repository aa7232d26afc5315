/** What models on disk can do, without loading them: from the header of the GGUF, once per file. */
import { stat } from 'node:fs/promises';
import { type Capabilities, capabilitiesOf } from '../chat/capabilities.ts';
import { findInfillTokens, infillSpellings } from '../chat/infill.ts';
import { ChatTemplate } from '../chat/template.ts';
import { toFilePooling } from './file-pooling.ts';
import { readGgufHeader } from './gguf-header.ts';
import { HeaderCache } from './header-cache.ts';

const filesMax = 4096;
/** To be looked for in the vocabulary. */
export const watchedTokens: ReadonlySet<string> = new Set(
  infillSpellings.flat().filter((text) => text !== null),
);
const unknown: Capabilities = { capabilities: ['text'], tool_call: false, reasoning: false };

export class FileCapabilities {
  readonly #headers: HeaderCache;
  readonly #known = new Map<string, Promise<Capabilities>>();

  /** Its headers must know `watchedTokens`. */
  constructor(headers = new HeaderCache((file) => readGgufHeader(file, watchedTokens))) {
    this.#headers = headers;
  }

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
      const reading = read(file, this.#headers);
      this.#known.set(key, reading);
      reading.catch(() => this.#known.delete(key)); // the headers know what is worth another look
      return await reading;
    } catch {
      return unknown;
    }
  }
}

async function read(file: string, headers: HeaderCache): Promise<Capabilities> {
  const header = await headers.read(file);
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
  const { pooling } = toFilePooling(header);
  return capabilitiesOf({ pooling, template: template.look(), infill: infill !== null });
}
