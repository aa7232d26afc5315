/** One model of the registry: its state, its handle while it has one, and how that looks on the wire. */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { ArchHandle, GenerateResult, ModelFacts } from 'cortex-core/wire/inference';
import type { ModelLoad, ModelSpec, NeuronModel } from 'cortex-core/wire/neuron';
import { ChatTemplate } from '../chat/template.ts';
import type { Device } from '../device/device.ts';
import type { Gate } from './gate.ts';
import { LoadMeter } from './load-meter.ts';
import type { LoadedModel } from './loader.ts';
import type { DeviceSlot } from './placement.ts';

export type EntryStatus = 'loading' | 'loaded' | 'unloading' | 'recovering' | 'poisoned' | 'failed';

/** A snapshot for one request: ask again after waiting, the handle may have changed. */
export interface ServingModel {
  readonly id: string;
  readonly device: Device;
  readonly handle: ArchHandle;
  readonly facts: ModelFacts;
  readonly template: ChatTemplate;
  readonly admission: Gate;
  /** Aborts when the model is taken away from under the request. */
  readonly cut: AbortSignal;
  /** Feeds the measured rates. */
  observe(result: GenerateResult): void;
}

interface Attached {
  readonly model: LoadedModel;
  readonly template: ChatTemplate;
}

const rateWeight = 0.3;
/** Shorter measurements say more about the clock than about the device. */
const rateTokensMin = 8;

export class ModelEntry {
  readonly id: string;
  readonly spec: ModelSpec;
  readonly file: string | null;
  readonly admission: Gate;
  readonly meter: LoadMeter;
  readonly stopLoading = new AbortController();
  readonly gone: Promise<void>;
  status: EntryStatus = 'loading';
  ready: Promise<void> = Promise.resolve();
  deathsMs: number[] = [];
  failure: string | null = null;
  readonly #clock: Clock;
  readonly #outputTokensMax: number;
  readonly #cut = new AbortController();
  #attached: Attached | null = null;
  #markGone: () => void = () => {};
  #prefillRate = 0;
  #decodeRate = 0;
  #waiting = 0;

  constructor(spec: ModelSpec, file: string | null, admission: Gate, outputTokensMax: number, clock: Clock) {
    this.id = spec.model_id;
    this.spec = spec;
    this.file = file;
    this.#clock = clock;
    this.#outputTokensMax = outputTokensMax;
    this.admission = admission;
    this.meter = new LoadMeter(this.id, clock);
    this.gone = new Promise((resolve) => {
      this.#markGone = resolve;
    });
  }

  get isLoading(): boolean {
    return this.status === 'loading' || this.status === 'recovering';
  }

  attach(model: LoadedModel): void {
    const { device } = model.slot;
    const { handle, facts } = model.arch;
    const hasChatMl = async (): Promise<boolean> => {
      const ids = await device.tokenize(handle, '<|im_start|>', { addSpecial: false, parseSpecial: true });
      return ids.length === 1;
    };
    this.#attached = { model, template: new ChatTemplate(this.id, facts, hasChatMl) };
    this.status = 'loaded';
  }

  /** The handle is gone with its owner. */
  detach(): void {
    this.#attached?.model.reservation.release();
    this.#attached = null;
  }

  handleOn(slot: DeviceSlot): ArchHandle | null {
    const model = this.#attached?.model;
    return model?.slot === slot ? model.arch.handle : null;
  }

  serving(): ServingModel {
    if (this.status !== 'loaded' || this.#attached === null) throw this.refusal();
    const { model, template } = this.#attached;
    return {
      id: this.id,
      device: model.slot.device,
      handle: model.arch.handle,
      facts: model.arch.facts,
      template,
      admission: this.admission,
      cut: this.#cut.signal,
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
    const facts = this.#attached?.model.arch.facts;
    const template = this.#attached?.template;
    const stuck = this.status === 'poisoned' || this.status === 'failed';
    return {
      id: this.id,
      harness: this.spec.harness,
      status: this.status,
      devices: [...(this.#attached?.model.slot.indices ?? [])],
      vram_used_mb: this.#attached?.model.reservation.mb ?? null,
      vram_estimate_mb: this.#attached?.model.reservation.mb ?? null,
      capabilities: ['text'],
      ...(facts === undefined
        ? {}
        : { limit: { context: facts.context, output: Math.min(facts.context, this.#outputTokensMax) } }),
      ...(facts?.threads === undefined ? {} : { threads: facts.threads }),
      tool_call: template?.mentions('tools') ?? false,
      reasoning: template?.mentions('enable_thinking') ?? false,
      ...(stuck ? { servable: { ok: false, reason: this.status, detail: this.refusal().message } } : {}),
      digest: this.#attached?.model.digest ?? null,
    };
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
    };
  }

  #observe({ usage, timings }: GenerateResult): void {
    const prefilled = usage.promptTokens - usage.cachedTokens;
    this.#prefillRate = smooth(this.#prefillRate, prefilled, timings.prefillMs);
    this.#decodeRate = smooth(this.#decodeRate, usage.completionTokens, timings.decodeMs);
  }
}

function smooth(old: number, tokens: number, ms: number): number {
  if (tokens < rateTokensMin || ms <= 0) return old;
  const now = (tokens * 1000) / ms;
  return old === 0 ? now : old + rateWeight * (now - old);
}
