/** This neuron's own figures for Prometheus. One registry per instance, nothing global. */
import type { GenerateResult } from 'cortex-core/wire/inference';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ModelRegistry } from '../models/registry.ts';

const durationBuckets = [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200];
const firstTokenBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120];

export interface RequestOutcome {
  readonly model: string;
  readonly result: GenerateResult | null;
  /** Tokens of the result that were generated elsewhere. */
  readonly answered: number;
  readonly durationMs: number;
  readonly firstTokenMs: number | null;
}

export class NeuronMetrics {
  readonly #registry = new Registry();
  readonly #requests = this.#counter('neuron_requests_total', 'Inference requests that were run');
  readonly #errors = this.#counter('neuron_request_errors_total', 'Inference requests that failed');
  readonly #promptTokens = this.#counter('neuron_prompt_tokens_total', 'Prompt tokens');
  readonly #cachedTokens = this.#counter(
    'neuron_cached_prompt_tokens_total',
    'Prompt tokens found in the cache',
  );
  readonly #completionTokens = this.#counter('neuron_completion_tokens_total', 'Generated tokens');
  readonly #drafted = this.#counter('neuron_draft_tokens_total', 'Tokens drafted ahead');
  readonly #accepted = this.#counter(
    'neuron_draft_tokens_accepted_total',
    'Of those, tokens that were taken',
  );
  readonly #duration = this.#histogram('neuron_request_duration_seconds', 'Whole request', durationBuckets);
  readonly #firstToken = this.#histogram(
    'neuron_time_to_first_token_seconds',
    'First token',
    firstTokenBuckets,
  );
  readonly #inFlight = this.#gauge('neuron_model_in_flight', 'Requests that run');
  readonly #queueDepth = this.#gauge('neuron_model_queue_depth', 'Requests that wait');
  readonly #prefillRate = this.#gauge('neuron_model_tok_s_prefill', 'Measured prefill rate, tokens/s');
  readonly #decodeRate = this.#gauge('neuron_model_tok_s_decode', 'Measured decode rate, tokens/s');

  readonly #memoryUsed = this.#gauge('neuron_model_memory_mb', 'Memory on its device, MiB');
  readonly #memoryEstimate = this.#gauge('neuron_model_memory_estimate_mb', 'The same as foreseen, MiB');

  get contentType(): string {
    return this.#registry.contentType;
  }

  record(outcome: RequestOutcome): void {
    const labels = { model: outcome.model };
    this.#requests.inc(labels);
    this.#duration.observe(labels, outcome.durationMs / 1000);
    if (outcome.firstTokenMs !== null) this.#firstToken.observe(labels, outcome.firstTokenMs / 1000);
    if (outcome.result === null) {
      this.#errors.inc(labels);
      return;
    }
    const { promptTokens, cachedTokens, completionTokens } = outcome.result.usage;
    this.#promptTokens.inc(labels, promptTokens);
    this.#cachedTokens.inc(labels, cachedTokens);
    const { drafted = 0, accepted = 0 } = outcome.result.speculation ?? {};
    this.#drafted.inc(labels, drafted);
    this.#accepted.inc(labels, accepted);
    this.#completionTokens.inc(labels, Math.max(0, completionTokens - outcome.answered));
  }

  /** Prometheus text. Reads the registry, touches nothing in it. */
  async render(models: ModelRegistry): Promise<string> {
    const rates = [this.#prefillRate, this.#decodeRate];
    for (const gauge of [this.#inFlight, this.#queueDepth, ...rates, this.#memoryUsed, this.#memoryEstimate])
      gauge.reset();
    for (const { id, usedMb, estimateMb } of models.memory()) {
      this.#memoryUsed.set({ model: id }, usedMb);
      this.#memoryEstimate.set({ model: id }, estimateMb);
    }
    for (const load of models.loads()) {
      const labels = { model: load.id };
      this.#inFlight.set(labels, load.in_flight);
      this.#queueDepth.set(labels, load.queue_depth);
      this.#prefillRate.set(labels, load.tok_s_prefill);
      this.#decodeRate.set(labels, load.tok_s_decode);
    }
    return this.#registry.metrics();
  }

  #counter(name: string, help: string): Counter<'model'> {
    return new Counter({ name, help, labelNames: ['model'], registers: [this.#registry] });
  }

  #gauge(name: string, help: string): Gauge<'model'> {
    return new Gauge({ name, help, labelNames: ['model'], registers: [this.#registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram<'model'> {
    return new Histogram({ name, help, buckets, labelNames: ['model'], registers: [this.#registry] });
  }
}
