/** A device whose generations do what a test says, step by step; the rest of the neuron is the real one. */
import type {
  EmbedResult,
  GenerateParams,
  GenerateResult,
  LoadedArch,
  LoadSpec,
  ModelFacts,
  StepEvent,
  TokenizeOptions,
} from 'cortex-core/wire/inference';
import type { Device } from '../device/device.ts';

export const scriptedVocabulary = 0x11_00_00;

/** One request as the device sees it. */
export class Generation {
  readonly params: GenerateParams;
  readonly signal: AbortSignal;
  readonly result: Promise<GenerateResult>;
  /** Resolves when the neuron took the request back. */
  readonly cancelled: Promise<void>;
  readonly #onStep: (event: StepEvent) => void;
  #resolve: (result: GenerateResult) => void = () => {};
  #made = 0;

  constructor(params: GenerateParams, onStep: (event: StepEvent) => void, signal: AbortSignal) {
    this.params = params;
    this.signal = signal;
    this.#onStep = onStep;
    this.result = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.cancelled = new Promise((resolve) => {
      signal.addEventListener('abort', () => {
        this.finish('cancelled');
        resolve();
      });
    });
  }

  emit(text: string, logprobs?: StepEvent['logprobs']): void {
    this.#made++;
    this.#onStep({ text, tokens: [this.#made], logprobs });
  }

  finish(
    finishReason: GenerateResult['finishReason'] = 'stop',
    speculation: GenerateResult['speculation'] = undefined,
  ): void {
    const promptTokens = this.params.tokens.length;
    this.#resolve({
      finishReason,
      stopText: null,
      usage: { promptTokens, cachedTokens: 2, completionTokens: this.#made },
      timings: { queueMs: 0, prefillMs: 10, decodeMs: 100 },
      speculation,
    });
  }
}

/** Texts that are one token, by themselves and where special tokens are read. */
const specials: ReadonlyMap<string, number> = new Map([
  ['<|fim_prefix|>', 1],
  ['<|fim_suffix|>', 2],
  ['<|fim_middle|>', 3],
]);

/** A token per character, its code point. */
export class ScriptedDevice implements Device {
  readonly id = 'cpu';
  readonly state = 'ready';
  readonly generations: Generation[] = [];
  readonly loads: LoadSpec[] = [];
  readonly dropped: number[] = [];
  chatTemplate = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}';
  pooling: ModelFacts['pooling'] = 'none';
  embeddingLength = 1;
  /** Jobs, as far as tests count them. */
  readonly jobs = { tokenize: 0, detokenize: 0 };
  readonly #waiters: ((generation: Generation) => void)[] = [];
  readonly #unseen: Generation[] = [];

  /** The next request that reaches the device; each is given once. */
  next(): Promise<Generation> {
    const ready = this.#unseen.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  async load(spec: LoadSpec): Promise<LoadedArch> {
    this.loads.push(spec);
    const facts: ModelFacts = {
      architecture: 'scripted',
      description: 'scripted',
      parameterCount: 1,
      fileBytes: 1,
      vocabSize: scriptedVocabulary,
      trainContext: 4096,
      context: spec.context ?? 4096,
      slots: spec.slots,
      embeddingLength: this.embeddingLength,
      layerCount: 1,
      hasEncoder: false,
      hasDecoder: true,
      recurrent: false,
      pooling: this.pooling,
      sepToken: null,
      chatTemplate: this.chatTemplate,
      namedTemplates: {},
      bosToken: null,
      eosToken: null,
      addBos: false,
      addEos: false,
      eogTokens: [],
      metadata: {},
      longestPieceBytes: 4,
      memoryMb: 50,
      loadMs: 1,
    };
    return { handle: this.loads.length, facts };
  }

  generate(
    _handle: number,
    params: GenerateParams,
    onStep: (event: StepEvent) => void,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<GenerateResult> {
    const generation = new Generation(params, onStep, signal);
    this.generations.push(generation);
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#unseen.push(generation);
    else waiter(generation);
    return generation.result;
  }

  async tokenize(_handle: number, text: string, options: TokenizeOptions): Promise<Int32Array> {
    this.jobs.tokenize++;
    const special = options.parseSpecial ? specials.get(text) : undefined;
    if (special !== undefined) return Int32Array.of(special);
    return Int32Array.from([...text], (character) => character.codePointAt(0) ?? 0);
  }

  async detokenize(_handle: number, tokens: Int32Array): Promise<string> {
    this.jobs.detokenize++;
    return String.fromCodePoint(...tokens);
  }

  async dropArch(handle: number): Promise<void> {
    this.dropped.push(handle);
  }

  async queryVram() {
    return { freeMb: 1000, totalMb: 1000 };
  }

  async listBackendDevices() {
    return [];
  }

  exportArch(): Promise<never> {
    return unscripted();
  }

  transferIn(): Promise<never> {
    return unscripted();
  }

  snapshotKv(): Promise<never> {
    return unscripted();
  }

  restoreKv(): Promise<never> {
    return unscripted();
  }

  dropKvSnapshot(): Promise<never> {
    return unscripted();
  }

  /** Numbers that follow from the first token. */
  async embed(_handle: number, inputs: readonly Int32Array[]): Promise<EmbedResult> {
    const vectors = inputs.map((tokens) => {
      return Float32Array.from({ length: this.embeddingLength }, (_, at) => Math.sin((tokens[0] ?? 0) + at));
    });
    return { vectors, promptTokens: inputs.reduce((sum, tokens) => sum + tokens.length, 0) };
  }

  rank(): Promise<never> {
    return unscripted();
  }

  restartOwner(): Promise<never> {
    return unscripted();
  }

  async clearKv(): Promise<void> {}

  async forwardLogits(): Promise<Float32Array> {
    return new Float32Array(1);
  }

  onOwnerDeath(): () => void {
    return () => {};
  }

  async shutdown(): Promise<void> {}
}

function unscripted(): Promise<never> {
  return Promise.reject(new Error('no test has scripted this'));
}
