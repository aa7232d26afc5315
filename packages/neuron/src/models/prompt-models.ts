/**
 * Models as far as making a prompt needs them: template, format and tokenizer, without weights.
 *
 * Problem: how many tokens a request has is asked far more often than it is answered, in bursts, and also of
 * models that are not loaded. Counting must neither load one nor hold up the streams of one that runs.
 * Design: an owner of its own (device/vocabulary-owner.ts) reads vocabularies with libllama's `vocab_only`
 * and tokenizes; it is spawned by the first count and ended when none came for a while. A file is opened
 * once for whoever asks; the vocabularies that were asked for last stay open. Files are told apart by path,
 * time and size, so that a replaced file is read again. When the owner dies a count is tried once more; the
 * file at which it died twice is refused until it changes.
 * Limits: 8 vocabularies, 5 minutes idle, 128 counts at once, texts of 16 Mi characters.
 */
import { stat } from 'node:fs/promises';
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type {
  ArchHandle,
  OpenedVocabulary,
  TokenizeOptions,
  VocabularyFacts,
} from 'cortex-core/wire/inference';
import { capabilitiesOf } from '../chat/capabilities.ts';
import type { ChatFormat } from '../chat/format/chat-format.ts';
import { detectFormat } from '../chat/format/detect-format.ts';
import { ChatTemplate } from '../chat/template.ts';
import type { VocabularyOwner } from '../device/vocabulary-owner.ts';
import { toFilePooling } from './file-pooling.ts';

/** What a prompt is made with; of a loaded model and of a file alone the same. */
export interface PromptModel {
  readonly id: string;
  readonly template: ChatTemplate;
  readonly format: ChatFormat;
  readonly capabilities: readonly string[];
  readonly facts: VocabularyFacts;
  readonly tokenize: (text: string, options: TokenizeOptions, signal: AbortSignal) => Promise<Int32Array>;
}

export interface PromptModelsOptions {
  /** Spawns the owner. */
  readonly open: () => VocabularyOwner;
  readonly clock: Clock;
  readonly limits?: Partial<PromptModelsLimits>;
}

export interface PromptModelsLimits {
  readonly vocabulariesMax: number;
  readonly idleMs: number;
  readonly countsMax: number;
  readonly textCharsMax: number;
}

const defaultLimits: PromptModelsLimits = {
  vocabulariesMax: 8,
  idleMs: 5 * 60_000,
  countsMax: 128,
  textCharsMax: 16 * 1024 * 1024,
};

const deathsMax = 2;
const knownDeathsMax = 256;

interface Entry {
  readonly key: string;
  readonly opened: Promise<OpenedVocabulary>;
  handle: ArchHandle | null;
  /** Counts that hold it open. */
  users: number;
}

type Parts = Pick<PromptModel, 'template' | 'format' | 'capabilities'>;

export class PromptModels {
  readonly #options: PromptModelsOptions;
  readonly #limits: PromptModelsLimits;
  /** The last one asked for is the last one here. */
  readonly #entries = new Map<string, Entry>();
  /** Templates are compiled once per opened vocabulary. */
  readonly #parts = new WeakMap<VocabularyFacts, Parts>();
  readonly #deaths = new Map<string, number>();
  #owner: VocabularyOwner | null = null;
  #idleTimer: { cancel(): void } | null = null;
  #running = 0;
  #closed: Promise<void> | null = null;

  constructor(options: PromptModelsOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
  }

  /**
   * Runs `use` with what makes prompts of the model in `file`.
   * Errors: `model_file_not_found`, `invalid_model_file`, `overloaded`, `device_gone`, and those of `use`.
   */
  async with<T>(id: string, file: string, use: (model: PromptModel) => Promise<T>): Promise<T> {
    const { countsMax } = this.#limits;
    if (this.#running >= countsMax) {
      throw new AppError('overloaded', `${countsMax} counts are running; try again`, { retryAfterSecs: 1 });
    }
    this.#running++;
    this.#idleTimer?.cancel();
    try {
      const key = await keyOf(id, file);
      try {
        return await this.#run(key, id, file, use);
      } catch (thrown) {
        if (!(thrown instanceof AppError) || thrown.code !== 'device_gone' || this.#closed !== null)
          throw thrown;
        return await this.#run(key, id, file, use);
      }
    } finally {
      this.#running--;
      if (this.#running === 0 && this.#closed === null) this.#startIdle();
    }
  }

  /** Ends the owner. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #run<T>(key: string, id: string, file: string, use: (model: PromptModel) => Promise<T>): Promise<T> {
    const entry = this.#enter(key, id, file);
    entry.users++;
    try {
      const { handle, facts } = await entry.opened;
      const owner = this.#requireOwner();
      const tokenize: PromptModel['tokenize'] = async (text, options, signal) => {
        this.#checkLength(text);
        return owner.tokenize(handle, text, options, signal);
      };
      return await use({ id, facts, tokenize, ...this.#partsOf(id, facts, tokenize) });
    } finally {
      entry.users--;
      this.#trim();
    }
  }

  #checkLength(text: string): void {
    const { textCharsMax } = this.#limits;
    if (text.length <= textCharsMax) return;
    throw new AppError(
      'invalid_request',
      `the prompt has ${text.length} characters; prompts of up to ${textCharsMax} are counted`,
      { param: 'messages' },
    );
  }

  #enter(key: string, id: string, file: string): Entry {
    const known = this.#entries.get(key);
    this.#entries.delete(key);
    const entry: Entry = known ?? { key, opened: this.#open(key, id, file), handle: null, users: 0 };
    this.#entries.set(key, entry);
    if (known !== undefined) return entry;
    entry.opened.then(
      ({ handle }) => {
        entry.handle = handle;
      },
      // A fault is not kept: the file may be mended, and its size or time may not tell.
      () => this.#forget(entry),
    );
    return entry;
  }

  async #open(key: string, id: string, file: string): Promise<OpenedVocabulary> {
    if ((this.#deaths.get(key) ?? 0) >= deathsMax) {
      throw new AppError(
        'invalid_model_file',
        `model "${id}": reading the vocabulary of its file ended the process that read it, twice; download ` +
          'the file again',
      );
    }
    return this.#requireOwner().openVocabulary(id, file);
  }

  #requireOwner(): VocabularyOwner {
    if (this.#closed !== null) throw new AppError('shutting_down', 'this neuron is shutting down');
    if (this.#owner !== null) return this.#owner;
    const owner = this.#options.open();
    this.#owner = owner;
    owner.onOwnerDeath(({ busyHandles }) => this.#onDeath(owner, busyHandles));
    return owner;
  }

  /** Its handles died with it. Files are read one after the other: of several the first is the suspect. */
  #onDeath(owner: VocabularyOwner, busy: readonly ArchHandle[]): void {
    if (this.#owner !== owner) return;
    const all = [...this.#entries.values()];
    this.#entries.clear();
    const suspect =
      all.find(({ handle }) => handle === null) ??
      all.find(({ handle }) => handle !== null && busy.includes(handle));
    if (suspect === undefined) return;
    if (this.#deaths.size >= knownDeathsMax) this.#deaths.clear();
    this.#deaths.set(suspect.key, (this.#deaths.get(suspect.key) ?? 0) + 1);
  }

  #forget(entry: Entry): void {
    if (this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
  }

  #trim(): void {
    for (const entry of this.#entries.values()) {
      if (this.#entries.size <= this.#limits.vocabulariesMax) return;
      if (entry.users > 0) continue;
      this.#forget(entry);
      const owner = this.#owner;
      entry.opened.then(({ handle }) => owner?.dropArch(handle)).catch(() => {});
    }
  }

  #partsOf(id: string, facts: VocabularyFacts, tokenize: PromptModel['tokenize']): Parts {
    const known = this.#parts.get(facts);
    if (known !== undefined) return known;
    const template = new ChatTemplate(facts, {
      modelId: id,
      hasChatMl: async () => {
        const options = { addSpecial: false, parseSpecial: true };
        return (await tokenize('<|im_start|>', options, new AbortController().signal)).length === 1;
      },
      now: () => new Date(this.#options.clock.now()),
    });
    const pooling = poolingOf(facts);
    const { capabilities } = capabilitiesOf({ pooling, template: template.look(), infill: false });
    const parts = { template, format: detectFormat(facts, facts.architecture), capabilities };
    this.#parts.set(facts, parts);
    return parts;
  }

  #startIdle(): void {
    this.#idleTimer?.cancel();
    if (this.#owner === null) return;
    this.#idleTimer = this.#options.clock.setTimer(this.#limits.idleMs, () => void this.#end());
  }

  async #end(): Promise<void> {
    this.#idleTimer?.cancel();
    const owner = this.#owner;
    this.#owner = null;
    this.#entries.clear();
    await owner?.shutdown();
  }
}

async function keyOf(id: string, file: string): Promise<string> {
  const { mtimeMs, size } = await stat(file).catch((cause: unknown) => {
    throw new AppError('model_file_not_found', `model "${id}": its file is gone from the disk`, { cause });
  });
  return `${id} ${file} ${mtimeMs} ${size}`;
}

/** As the engine decides at a load, from the same keys as texts. */
function poolingOf({ metadata }: VocabularyFacts): ReturnType<typeof toFilePooling>['pooling'] {
  const typed = new Map<string, string | boolean>(Object.entries(metadata));
  for (const [key, value] of typed)
    if (value === 'true' || value === 'false') typed.set(key, value === 'true');
  return toFilePooling({ metadata: typed }).pooling;
}
