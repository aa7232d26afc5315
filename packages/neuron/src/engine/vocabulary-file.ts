/**
 * The vocabulary of a GGUF without its weights (libllama's `vocab_only`): what a prompt costs is known for a
 * model that is not loaded. Memory: the vocabulary, some ten to a hundred MiB for 150,000 tokens; no device.
 */
import { basename } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';
import type { TokenizeOptions, VocabularyFacts } from 'cortex-core/wire/inference';
import type { LlamaApi } from '../libllama/bindings.gen.ts';
import type { Libllama } from '../libllama/load-library.ts';
import { readMetadata, readVocabularyFacts } from './read-facts.ts';
import { readVocabulary, type Vocabulary } from './vocabulary.ts';

export class VocabularyFile {
  readonly facts: VocabularyFacts;
  readonly #api: LlamaApi;
  readonly #vocabulary: Vocabulary;
  #model: bigint | null;

  /** Errors: `invalid_model_file` for what libllama cannot read. */
  constructor({ api }: Libllama, modelId: string, file: string) {
    const params = { ...api.llama_model_default_params(), vocab_only: true };
    const model = api.llama_model_load_from_file(file, params) as bigint | null;
    if (model === null) {
      throw new AppError(
        'invalid_model_file',
        `model "${modelId}": the vocabulary of ${basename(file)} cannot be read; it is damaged, or of an ` +
          "architecture newer than this build. Download it again; the neuron's log has the reason",
        { detail: { path: file } },
      );
    }
    this.#api = api;
    this.#model = model;
    this.#vocabulary = readVocabulary(api, model);
    this.facts = readVocabularyFacts(api, this.#vocabulary, readMetadata(api, model));
  }

  tokenize(text: string, options: TokenizeOptions): Int32Array {
    if (this.#model === null) throw new AppError('job_failed', 'Tokenize: the vocabulary is closed');
    return this.#vocabulary.tokenize(text, options);
  }

  /** Idempotent. */
  close(): void {
    if (this.#model !== null) this.#api.llama_model_free(this.#model);
    this.#model = null;
  }
}
