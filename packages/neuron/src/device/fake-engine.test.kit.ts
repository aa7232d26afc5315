/** An engine without native code, and a transport that runs the real owner on it in this thread. */
import { AppError } from 'cortex-core/wire/errors';
import type {
  EmbedResult,
  GenerateParams,
  GenerateResult,
  KvPrefix,
  KvSnapshot,
  LoadSpec,
  ModelFacts,
  RankResult,
  VocabularyFacts,
} from 'cortex-core/wire/inference';
import type { FromOwner, ToOwner } from './jobs.ts';
import type {
  EngineLike,
  GenerateCallbacks,
  LoadedModelLike,
  SteppedTaskLike,
  VocabularyLike,
} from './owner/engine-like.ts';
import { Owner } from './owner/owner.ts';
import type { OwnerLink, Transport, TransportEvents } from './transport.ts';

export const loadSpec: LoadSpec = {
  modelId: 'fake',
  file: '/models/fake.gguf',
  context: 512,
  slots: 4,
  devices: [],
  splitMode: 'layer',
  gpuLayers: null,
  cacheTypeK: 'f16',
  cacheTypeV: 'f16',
  batch: 512,
  ubatch: 512,
  threads: null,
  flashAttention: null,
  lora: [],
  embeddings: false,
  prefixCacheMb: 0,
  speculation: 'off',
  draftFile: null,
};

export function generateParams(tokens: readonly number[], maxTokens: number): GenerateParams {
  return {
    tokens: Int32Array.from(tokens),
    sampling: { temperature: 0 },
    maxTokens,
    stops: [],
    grammar: null,
    topLogprobs: null,
    ignoreEos: true,
  };
}

interface Sequence {
  readonly params: GenerateParams;
  readonly callbacks: GenerateCallbacks;
  made: number;
  cancelled: boolean;
}

export class FakeModel implements LoadedModelLike {
  readonly facts: ModelFacts;
  readonly sequences: Sequence[] = [];
  prefixes: readonly KvPrefix[] = [];
  importError: unknown = null;
  stepError: unknown = null;
  /** Runs at the begin of each step of a model or of an embedding. */
  onStep: () => void = () => {};
  closed = false;

  constructor(facts: ModelFacts) {
    this.facts = facts;
  }

  tokenize(text: string): Int32Array {
    return Int32Array.from(text, (character) => character.codePointAt(0) ?? 0).subarray(0);
  }

  detokenize(tokens: Int32Array): string {
    return String.fromCodePoint(...tokens);
  }

  clearKv(): void {}

  forwardLogits(tokens: Int32Array, offset: number): Float32Array {
    return new Float32Array(64)
      .fill(0)
      .subarray(8, 12)
      .fill(offset + tokens.length);
  }

  /** A step per input; the vector is the input itself. */
  embed(inputs: readonly Int32Array[]): SteppedTaskLike<EmbedResult> {
    const vectors: Float32Array[] = [];
    return {
      step: () => {
        this.onStep();
        if (this.stepError !== null) throw this.stepError;
        vectors.push(Float32Array.from(inputs[vectors.length] ?? []));
        return vectors.length === inputs.length ? { vectors, promptTokens: inputs.length } : null;
      },
    };
  }

  rank(inputs: readonly Int32Array[]): SteppedTaskLike<RankResult> {
    const scores = Float32Array.from(inputs, (input) => input.length);
    return { step: () => ({ scores, promptTokens: inputs.length }) };
  }

  snapshotKv(): KvSnapshot {
    return { id: 1, bytes: 8, length: 2 };
  }

  restoreKv(id: number): KvSnapshot {
    return { id, bytes: 8, length: 2 };
  }

  dropKvSnapshot(id: number): KvSnapshot {
    return { id, bytes: 8, length: 2 };
  }

  exportPrefixes(): readonly KvPrefix[] {
    return this.prefixes;
  }

  importPrefixes(prefixes: readonly KvPrefix[]): void {
    if (this.importError !== null) throw this.importError;
    this.prefixes = prefixes;
  }

  submit(params: GenerateParams, callbacks: GenerateCallbacks): { cancel(): void } {
    if (params.tokens.length === 0) throw new AppError('invalid_request', 'empty prompt');
    const sequence: Sequence = { params, callbacks, made: 0, cancelled: false };
    this.sequences.push(sequence);
    return {
      cancel: () => {
        sequence.cancelled = true;
      },
    };
  }

  hasWork(): boolean {
    return this.sequences.length > 0;
  }

  step(): void {
    this.onStep();
    if (this.stepError !== null) throw this.stepError;
    for (const sequence of [...this.sequences]) {
      if (sequence.cancelled) this.#finish(sequence, 'cancelled');
      else {
        sequence.callbacks.onStep({ text: `t${sequence.made} `, tokens: [sequence.made] });
        sequence.made++;
        if (sequence.made === sequence.params.maxTokens) this.#finish(sequence, 'length');
      }
    }
  }

  close(): void {
    this.closed = true;
    this.sequences.length = 0;
  }

  #finish(sequence: Sequence, finishReason: GenerateResult['finishReason']): void {
    this.sequences.splice(this.sequences.indexOf(sequence), 1);
    sequence.callbacks.onDone({
      finishReason,
      stopText: null,
      usage: {
        promptTokens: sequence.params.tokens.length,
        cachedTokens: 0,
        completionTokens: sequence.made,
      },
      timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
    });
  }
}

export class FakeEngine implements EngineLike {
  readonly models: FakeModel[] = [];
  readonly loads: LoadSpec[] = [];
  /** What importing prefixes throws in models loaded from now on. */
  importError: unknown = null;
  /** Runs between two progress calls of a load. */
  duringLoad: () => void = () => {};
  readonly vocabularies: FakeVocabulary[] = [];
  onOpenVocabulary: (file: string) => void = () => {};
  closed = false;

  devices() {
    return [{ index: 0, name: 'CPU', description: 'fake', kind: 'cpu', memory: this.memory() }] as const;
  }

  memory() {
    return { freeMb: 100, totalMb: 200 };
  }

  load(spec: LoadSpec, onProgress: (fraction: number) => boolean): FakeModel {
    this.loads.push(spec);
    if (spec.file.endsWith('corrupt.gguf')) throw new AppError('invalid_model_file', 'not a GGUF file');
    for (const fraction of [0.25, 0.5, 1]) {
      this.duringLoad();
      if (!onProgress(fraction)) throw new Error('llama_model_load: cancelled');
    }
    const model = new FakeModel({ description: spec.modelId } as ModelFacts);
    model.importError = this.importError;
    this.models.push(model);
    return model;
  }

  /** A token per UTF-16 unit. */
  openVocabulary(modelId: string, file: string): FakeVocabulary {
    if (file.endsWith('corrupt.gguf')) throw new AppError('invalid_model_file', 'not a GGUF file');
    this.onOpenVocabulary(file);
    const vocabulary = new FakeVocabulary(modelId);
    this.vocabularies.push(vocabulary);
    return vocabulary;
  }

  close(): void {
    this.closed = true;
  }
}

export class FakeVocabulary implements VocabularyLike {
  readonly facts: VocabularyFacts;
  closed = false;

  constructor(modelId: string) {
    this.facts = {
      architecture: modelId,
      vocabSize: 65_536,
      chatTemplate: '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}',
      namedTemplates: {},
      bosToken: null,
      eosToken: null,
      sepToken: null,
      addBos: false,
      addEos: false,
      metadata: {},
    };
  }

  tokenize(text: string): Int32Array {
    return Int32Array.from(text, (character) => character.charCodeAt(0));
  }

  close(): void {
    this.closed = true;
  }
}

/** Owners in this thread; `die` ends the current one as a crash would. */
export class FakeTransport implements Transport {
  readonly kind = 'process';
  readonly isolates: boolean;
  readonly engines: FakeEngine[] = [];
  readonly sent: ToOwner[] = [];
  /** What opening the engine throws. */
  startFails: AppError | null = null;
  terminated = 0;
  /** Nothing that owners say arrives: they hang. */
  silent = false;
  /** A kill does not end them. */
  immortal = false;
  #die: (cause: string) => void = () => {};

  constructor(isolates = true) {
    this.isolates = isolates;
  }

  get engine(): FakeEngine {
    const last = this.engines.at(-1);
    if (last === undefined) throw new Error('no owner has been spawned');
    return last;
  }

  die(cause = 'signal SIGKILL'): void {
    this.#die(cause);
  }

  spawn(events: TransportEvents): OwnerLink {
    let alive = true;
    let cancelledLoad = 0;
    let at = 0;
    let elapsedMs = 0;
    const deliver = (message: FromOwner): void => {
      const copy = structuredClone(message);
      queueMicrotask(() => alive && !this.silent && events.onMessage(copy));
    };
    const exit = (cause: string): void => {
      if (!alive) return;
      alive = false;
      events.onExit(cause);
    };
    this.#die = exit;
    const engine = new FakeEngine();
    this.engines.push(engine);
    const owner = new Owner(
      {
        send: deliver,
        isCongested: () => false,
        cancelledLoad: () => cancelledLoad,
        workingOn: (handle) => {
          at = handle;
        },
        schedule: (turn) => void setImmediate(() => alive && turn()),
        // Every step is long enough to be a message of its own.
        nowMs: () => (elapsedMs += 40),
        rest: () => {},
        onEnd: () => queueMicrotask(() => queueMicrotask(() => exit('exit code 0'))),
      },
      () => {
        if (this.startFails !== null) throw this.startFails;
        return engine;
      },
    );
    return {
      pid: 1000 + this.engines.length,
      post: (message) => {
        this.sent.push(message);
        const copy = structuredClone(message);
        queueMicrotask(() => alive && owner.handle(copy));
      },
      cancelLoad: (id) => {
        cancelledLoad = id;
      },
      workingOn: () => at,
      terminate: () => {
        this.terminated++;
        if (!this.immortal) queueMicrotask(() => exit('signal SIGKILL'));
      },
      stderrTail: () => ['ggml: last words'],
    };
  }
}
