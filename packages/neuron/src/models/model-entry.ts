/** One model of the registry: its state, its handle while it has one, and how that looks on the wire. */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { ArchHandle, GenerateResult, ModelFacts } from 'cortex-core/wire/inference';
import type { ModelLimit, ModelLoad, ModelSpec, NeuronModel } from 'cortex-core/wire/neuron';
import { type Capabilities, capabilitiesOf } from '../chat/capabilities.ts';
import type { ChatFormat } from '../chat/format/chat-format.ts';
import { detectFormat } from '../chat/format/detect-format.ts';
import { findInfillTokens, type InfillTokens } from '../chat/infill.ts';
import { ChatTemplate } from '../chat/template.ts';
import type { Device } from '../device/device.ts';
import type { DeviceSlot } from './choose-target.ts';
import type { Gate } from './gate.ts';
import { deriveLimit, type LimitSources } from './limits.ts';
import { LoadMeter } from './load-meter.ts';
import type { LoadedModel } from './loader.ts';
import { ModelUse } from './model-use.ts';
import { templateDigest } from './weights-digest.ts';

/** `draining`: about to move; those that were admitted run on, newcomers wait. `moving`: nothing runs. */
export type EntryStatus =
  | 'loading'
  | 'loaded'
  | 'draining'
  | 'moving'
  | 'unloading'
  | 'recovering'
  | 'poisoned'
  | 'failed';

/** What one request runs on. Ask again after waiting: the model may be gone. */
export interface ServingModel {
  readonly id: string;
  /** `device` and `handle` are always those of now: a model may move between two calls. */
  readonly device: Device;
  readonly handle: ArchHandle;
  readonly facts: ModelFacts;
  readonly template: ChatTemplate;
  readonly capabilities: readonly string[];
  /** How it writes reasoning and calls. */
  readonly format: ChatFormat;
  /** The tokens for filling in the middle; null = the model was not made for it. */
  infill(): Promise<InfillTokens | null>;
  readonly admission: Gate;
  /** Aborts when the model is taken away from under the request. */
  readonly cut: AbortSignal;
  /** Feeds the measured rates. */
  observe(result: GenerateResult): void;
}

type EntryLimits = Pick<LimitSources, 'outputTokensMax' | 'prefillSecsMax'>;

interface Attached {
  readonly model: LoadedModel;
  readonly template: ChatTemplate;
  readonly templateDigest: string;
  readonly format: ChatFormat;
  readonly infill: () => Promise<InfillTokens | null>;
  readonly can: Capabilities;
}

const rateWeight = 0.3;
/** Shorter measurements say more about the clock than about the device. */
const rateTokensMin = 8;
/** A short prompt fills no batch, and the first one waits for the weights: it says little of a long one. */
const readTokensMin = 128;

export class ModelEntry {
  readonly id: string;
  /** After a move it names the devices moved to, after a load the slots that there was room for. */
  spec: ModelSpec;
  /**
   * Of a reload. As the load names them: with none named it takes what there is room for; after a move what
   * it had, since others have the rest.
   */
  slotsAsked: ModelSpec['slots'];
  readonly file: string | null;
  readonly admission: Gate;
  readonly meter: LoadMeter;
  readonly use: ModelUse;
  readonly stopLoading = new AbortController();
  readonly gone: Promise<void>;
  status: EntryStatus = 'loading';
  ready: Promise<void> = Promise.resolve();
  failure: string | null = null;
  readonly #clock: Clock;
  readonly #limits: EntryLimits;
  #cut = new AbortController();
  #attached: Attached | null = null;
  /** Whose handle a move took away: its place and its memory are still promised to the model. */
  #moving: LoadedModel | null = null;
  #markGone: () => void = () => {};
  #prefillRate = 0;
  /** The same over prompts that are long enough to tell how fast a long one is read. */
  #readRate = 0;
  #decodeRate = 0;
  #waiting = 0;

  constructor(spec: ModelSpec, file: string | null, admission: Gate, limits: EntryLimits, clock: Clock) {
    this.id = spec.model_id;
    this.spec = spec;
    this.slotsAsked = spec.slots;
    this.file = file;
    this.#clock = clock;
    this.#limits = limits;
    this.admission = admission;
    this.meter = new LoadMeter(this.id, clock);
    this.use = new ModelUse(clock, admission);
    this.gone = new Promise((resolve) => {
      this.#markGone = resolve;
    });
  }

  get isLoading(): boolean {
    return this.status === 'loading' || this.status === 'recovering';
  }

  /** Serves, at once or after a move. */
  get isLoaded(): boolean {
    return this.status === 'loaded' || this.isMoving;
  }

  get isMoving(): boolean {
    return this.status === 'draining' || this.status === 'moving';
  }

  /** What it runs on; null while it has no handle. */
  get model(): LoadedModel | null {
    return this.#attached?.model ?? null;
  }

  /** MiB on its device, as promised before the load and as taken since; null while it has none. */
  get memory(): { readonly usedMb: number; readonly estimateMb: number } | null {
    const reservation = this.#attached?.model.reservation;
    if (reservation === undefined) return null;
    return { usedMb: reservation.mb, estimateMb: reservation.estimateMb };
  }

  /** As it is now: the measured rate moves it. */
  get limit(): ModelLimit | null {
    const context = this.#attached?.model.arch.facts.context;
    if (context === undefined) return null;
    return deriveLimit({ ...this.#limits, context, readRate: this.#readRate });
  }

  attach(model: LoadedModel): void {
    const { facts } = model.arch;
    const idOf = async (text: string): Promise<number | null> => {
      const { slot, arch } = this.#attached?.model ?? model;
      const options = { addSpecial: false, parseSpecial: true };
      const ids = await slot.device.tokenize(arch.handle, text, options);
      return ids.length === 1 ? (ids[0] ?? null) : null;
    };
    const template = new ChatTemplate(facts, {
      modelId: this.id,
      hasChatMl: async () => (await idOf('<|im_start|>')) !== null,
      now: () => new Date(this.#clock.now()),
    });
    this.#attached = {
      model,
      template,
      templateDigest: templateDigest(facts),
      format: detectFormat(facts, facts.architecture),
      // Asked when a request needs it: a job at every load would make a suspect of a model that only came up.
      infill: once(() => findInfillTokens(facts.metadata, idOf)),
      can: capabilitiesOf({ pooling: facts.pooling, template: template.look(), infill: false }),
    };
    this.spec = { ...this.spec, slots: facts.slots };
    if (this.#cut.signal.aborted) this.#cut = new AbortController();
    this.#moving = null;
    this.status = 'loaded';
  }

  /** The handle is gone with its owner. In a move the mover keeps the memory, and gives it back. */
  detach(): void {
    if (this.status !== 'moving') this.#attached?.model.reservation.release();
    else this.#moving = this.#attached?.model ?? null;
    this.#attached = null;
  }

  handleOn(slot: DeviceSlot): ArchHandle | null {
    const model = this.#attached?.model;
    return model?.slot === slot ? model.arch.handle : null;
  }

  serving(): ServingModel {
    const canServe = this.status === 'loaded' || this.status === 'draining';
    if (!canServe || this.#attached === null) throw this.refusal();
    const { model, template, format, infill, can } = this.#attached;
    const current = (): LoadedModel => this.#attached?.model ?? model;
    const cut = (): AbortSignal => this.#cut.signal;
    return {
      id: this.id,
      get device() {
        return current().slot.device;
      },
      get handle() {
        return current().arch.handle;
      },
      facts: model.arch.facts,
      template,
      format,
      capabilities: can.capabilities,
      infill,
      admission: this.admission,
      get cut() {
        return cut();
      },
      observe: (result) => this.#observe(result),
    };
  }

  /** Why a request cannot run now. */
  refusal(): AppError {
    const extras = { model_id: this.id };
    switch (this.status) {
      case 'loading': {
        const progress = this.meter.progress;
        const retryAfterSecs = Math.min(progress.eta_secs ?? 5, 60);
        return new AppError(
          'model_loading',
          `model "${this.id}" is loading (${progress.percent} %); retry later`,
          {
            extras,
            retryAfterSecs,
          },
        );
      }
      case 'recovering':
      case 'loaded':
        return new AppError(
          'model_recovering',
          `model "${this.id}" is being reloaded after a fault; retry soon`,
          {
            extras,
            retryAfterSecs: 2,
          },
        );
      case 'draining':
      case 'moving':
        return new AppError(
          'model_recovering',
          `model "${this.id}" is being moved to another device; retry soon`,
          { extras, retryAfterSecs: 2 },
        );
      case 'unloading':
        return new AppError('model_not_loaded', `model "${this.id}" is being unloaded; load it again`, {
          extras,
        });
      case 'poisoned':
        return new AppError(
          'model_poisoned',
          `model "${this.id}" brought its device down three times; POST /models/load tries again`,
          { extras },
        );
      case 'failed':
        return new AppError(
          'load_failed',
          `model "${this.id}" could not be reloaded: ${this.failure ?? 'unknown'}`,
          {
            extras,
          },
        );
      default:
        return this.status satisfies never;
    }
  }

  /** Resolves when the model is back, or after `ms`, or when it will not come back. */
  async waitReady(ms: number, signal: AbortSignal): Promise<void> {
    const { maxInFlight, maxQueueDepth } = this.admission.limits;
    if (this.#waiting >= maxInFlight + maxQueueDepth) throw this.refusal();
    this.#waiting++;
    const stop = new AbortController();
    try {
      const timeout = this.#clock.sleep(ms, AbortSignal.any([signal, stop.signal])).catch(() => {});
      await Promise.race([this.ready.catch(() => {}), timeout]);
      signal.throwIfAborted();
    } finally {
      stop.abort();
      this.#waiting--;
    }
  }

  /**
   * Waits for running requests, at most `ms`, then cuts them with `cause` and waits until they have let go.
   */
  async drain(ms: number, cause: AppError): Promise<void> {
    const stop = new AbortController();
    const timer = this.#clock.setTimer(ms, () => stop.abort());
    try {
      await this.admission.idle(stop.signal);
    } catch {
      this.#cut.abort(cause);
      const patience = new AbortController();
      const last = this.#clock.setTimer(1000, () => patience.abort());
      await this.admission.idle(patience.signal).catch(() => {});
      last.cancel();
    } finally {
      timer.cancel();
    }
  }

  async dropArch(): Promise<void> {
    const model = this.#attached?.model;
    this.#attached = null;
    if (model === undefined) return;
    try {
      await model.slot.device.dropArch(model.arch.handle);
    } finally {
      model.reservation.release();
    }
  }

  markGone(): void {
    this.#markGone();
  }

  toWire(): NeuronModel {
    const unservable = this.#unservable();
    const facts = this.#attached?.model.arch.facts;
    // it looks loaded while it moves, so it takes what a loaded one takes
    const placed = this.#attached?.model ?? (this.status === 'moving' ? this.#moving : null);
    return {
      id: this.id,
      harness: this.spec.harness,
      status: this.status === 'draining' || this.status === 'moving' ? 'loaded' : this.status,
      devices: [...(placed?.slot.indices ?? [])],
      vram_used_mb: placed?.reservation.mb ?? null,
      vram_estimate_mb: placed?.reservation.estimateMb ?? null,
      ...(this.#attached?.can ?? { capabilities: ['text'], tool_call: false, reasoning: false }),
      ...(this.limit === null ? {} : { limit: this.limit }),
      ...(facts?.threads === undefined ? {} : { threads: facts.threads }),
      ...(unservable === null ? {} : { servable: { ok: false, ...unservable } }),
      digest: this.#attached?.model.digest ?? null,
      weights_digest: this.#attached?.model.weightsDigest ?? null,
      template_digest: this.#attached?.templateDigest ?? null,
    };
  }

  /** Why a request would be refused for as long as nobody acts. */
  #unservable(): { readonly reason: string; readonly detail: string } | null {
    if (this.status === 'poisoned' || this.status === 'failed') {
      return { reason: this.status, detail: this.refusal().message };
    }
    const device = this.#attached?.model.slot.device;
    if (device?.state !== 'poisoned') return null;
    return { reason: 'device_poisoned', detail: `its device ${device.id} is poisoned; restart the neuron` };
  }

  toLoad(): ModelLoad {
    const { counters, limits } = this.admission;
    return {
      id: this.id,
      in_flight: counters.inFlight,
      queue_depth: counters.queueDepth,
      max_in_flight: limits.maxInFlight,
      max_queue_depth: limits.maxQueueDepth,
      rejected_queue_full: counters.rejectedQueueFull,
      rejected_timeout: counters.rejectedTimeout,
      rejected_per_principal: counters.rejectedPerPrincipal,
      anon_in_flight: 0,
      anon_max_in_flight: 0,
      rejected_anon_yield: 0,
      rejected_kv_timeout: 0,
      rejected_kv_unservable: 0,
      kv_budget_mb: 0,
      kv_available_mb: 0,
      tok_s_prefill: Math.round(this.#prefillRate * 10) / 10,
      tok_s_decode: Math.round(this.#decodeRate * 10) / 10,
      use: this.use.toWire(),
    };
  }

  #observe({ usage, timings }: GenerateResult): void {
    const prefilled = usage.promptTokens - usage.cachedTokens;
    this.#prefillRate = smooth(this.#prefillRate, prefilled, timings.prefillMs);
    if (prefilled >= readTokensMin) this.#readRate = smooth(this.#readRate, prefilled, timings.prefillMs);
    this.#decodeRate = smooth(this.#decodeRate, usage.completionTokens, timings.decodeMs);
  }
}

/** Asks one time, unless that fails: then whoever comes next asks again. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | null = null;
  return () => {
    answer ??= ask().catch((thrown: unknown) => {
      answer = null;
      throw thrown;
    });
    return answer;
  };
}

function smooth(old: number, tokens: number, ms: number): number {
  if (tokens < rateTokensMin || ms <= 0) return old;
  const now = (tokens * 1000) / ms;
  return old === 0 ? now : old + rateWeight * (now - old);
}
