/**
 * Prometheus metrics, one registry per gateway. Gauges are read from the last poll when scraped: a scrape
 * asks nobody.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { TokenUsage } from '../dialects/answer-probe.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { FleetEvent } from '../fleet/lifecycle-deps.ts';
import type { NodeState } from '../fleet/node-state.ts';

const durationBuckets = [0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200];
const firstTokenBuckets = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120];
const ratioBuckets = [0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.5, 2, 4, 10];
const speedBuckets = [1, 2.5, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200];

export interface RequestRecord {
  readonly model: string;
  readonly node: string;
  readonly failed: boolean;
  readonly durationSecs: number;
  readonly firstTokenSecs: number | null;
  /** The time to the first token that routing expected; null = the request was not routed. */
  readonly expectedSecs: number | null;
  /** From the first to the last token; null when there was at most one. */
  readonly decodeSecs: number | null;
  readonly usage: TokenUsage | null;
  readonly account: string;
  readonly key: string;
}

type ModelCounter = Counter<'model' | 'node'>;

export class GatewayMetrics {
  readonly registry = new Registry();
  readonly #requests = this.#counter('cortex_requests_total', 'Requests sent to a model');
  readonly #errors = this.#counter('cortex_request_errors_total', 'Requests that failed');
  readonly #prompt = this.#counter('cortex_prompt_tokens_total', 'Prompt tokens');
  readonly #completion = this.#counter('cortex_completion_tokens_total', 'Completion tokens');
  readonly #cached = this.#counter('cortex_cached_prompt_tokens_total', 'Prompt tokens whose KV was there');
  readonly #coldStarts = this.#counter('cortex_cold_starts_total', 'Models loaded on demand');
  readonly #continuations = new Counter({
    name: 'cortex_continuations_total',
    help: 'Answers that broke off: continued elsewhere, resent unseen, or failed',
    labelNames: ['result'],
    registers: [this.registry],
  });
  readonly #attached = new Counter({
    name: 'cortex_attached_requests_total',
    help: 'Requests that joined the answer to an identical one',
    registers: [this.registry],
  });
  readonly #moves = this.#counter('cortex_model_moves_total', 'Models moved to another device of their node');
  readonly #recycles = new Counter({
    name: 'cortex_device_recycles_total',
    help: 'Devices that got a fresh owner',
    labelNames: ['node', 'device'],
    registers: [this.registry],
  });
  readonly #evictions = this.#reasons(
    'cortex_evictions_total',
    'Models unloaded: room for another, ttl, or asked by a person',
  );
  readonly #swaps = this.#reasons(
    'cortex_swaps_total',
    'Loads that displaced models: which were idle, because a request was due, or asked by a person',
  );
  readonly #duration = this.#histogram('cortex_request_duration_seconds', 'Whole requests', durationBuckets);
  readonly #firstToken = this.#histogram(
    'cortex_time_to_first_token_seconds',
    'First token',
    firstTokenBuckets,
  );
  readonly #firstTokenRatio = this.#histogram(
    'cortex_first_token_expected_ratio',
    'Time to first token over what routing expected: 1 is right, 2 took twice as long',
    ratioBuckets,
  );
  readonly #speed = this.#histogram('cortex_tokens_per_second', 'Completion tokens per second', speedBuckets);
  readonly #spend = new Counter({
    name: 'cortex_spend_tokens_total',
    help: 'Tokens by key',
    labelNames: ['account', 'key'],
    registers: [this.registry],
  });

  readonly #protocolErrors = new Counter({
    name: 'cortex_stream_protocol_errors_total',
    help: 'Checked streams that broke the grammar of their dialect, by the first rule they broke',
    labelNames: ['dialect', 'rule'],
    registers: [this.registry],
  });

  onProtocolError(dialect: string, rule: string): void {
    this.#protocolErrors.inc({ dialect, rule });
  }

  record(request: RequestRecord): void {
    const labels = { model: request.model, node: request.node };
    this.#requests.inc(labels);
    this.#duration.observe(labels, request.durationSecs);
    if (request.failed) this.#errors.inc(labels);
    if (request.firstTokenSecs !== null) this.#firstToken.observe(labels, request.firstTokenSecs);
    if (request.firstTokenSecs !== null && request.expectedSecs !== null && request.expectedSecs > 0) {
      this.#firstTokenRatio.observe(labels, request.firstTokenSecs / request.expectedSecs);
    }
    const { usage } = request;
    if (usage === null) return;
    this.#prompt.inc(labels, usage.promptTokens);
    this.#completion.inc(labels, usage.completionTokens);
    this.#cached.inc(labels, usage.cachedTokens);
    const window =
      request.decodeSecs !== null && request.decodeSecs >= 0.1 ? request.decodeSecs : request.durationSecs;
    if (usage.completionTokens > 0 && window > 0)
      this.#speed.observe(labels, usage.completionTokens / window);
    this.#spend.inc(
      { account: request.account, key: request.key },
      usage.promptTokens + usage.completionTokens,
    );
  }

  onBreak(result: 'resent' | 'continued' | 'failed'): void {
    this.#continuations.inc({ result });
  }

  onAttached(): void {
    this.#attached.inc();
  }

  onFleetEvent(event: FleetEvent): void {
    if (event.kind === 'recycled') {
      this.#recycles.inc({ node: event.node, device: String(event.device) });
      return;
    }
    const labels = { model: event.model, node: event.node };
    if (event.kind === 'loaded') this.#coldStarts.inc(labels);
    else if (event.kind === 'moved') this.#moves.inc(labels);
    else if (event.kind === 'evicted') this.#evictions.inc({ ...labels, reason: event.reason });
    else this.#swaps.inc({ ...labels, reason: event.reason });
  }

  /** Reads the fleet's last poll at each scrape; what is no longer there has no series. */
  watch(fleet: Fleet): void {
    const { registry } = this;
    const nodeGauges = Object.entries(nodeReadings).map(([name, read]) => ({
      read,
      gauge: new Gauge({ name, help: name, labelNames: ['node'], registers: [registry] }),
    }));
    const modelGauges = Object.entries(modelReadings).map(([name, read]) => ({
      read,
      gauge: new Gauge({ name, help: name, labelNames: ['node', 'model'], registers: [registry] }),
    }));
    const rejections = new Gauge({
      name: 'cortex_model_rejections_total',
      help: 'Requests a neuron refused, by reason',
      labelNames: ['node', 'model', 'reason'],
      registers: [registry],
    });
    const deviceGauges = Object.entries(deviceReadings).map(([name, read]) => ({
      read,
      gauge: new Gauge({ name, help: name, labelNames: ['node', 'device'], registers: [registry] }),
    }));
    new Gauge({
      name: 'cortex_waiting_requests',
      help: 'Requests that wait for a model to load',
      registers: [registry],
      collect() {
        this.set(fleet.waitingCount);
        for (const { gauge } of [...nodeGauges, ...modelGauges, ...deviceGauges]) gauge.reset();
        rejections.reset();
        for (const node of fleet.nodes()) {
          for (const { gauge, read } of nodeGauges) gauge.set({ node: node.name }, read(node));
          for (const model of node.health?.models ?? []) {
            const labels = { node: node.name, model: model.id };
            for (const { gauge, read } of modelGauges) gauge.set(labels, read(model));
            for (const [reason, count] of Object.entries(rejectionsOf(model))) {
              rejections.set({ ...labels, reason }, count);
            }
          }
          for (const device of node.health?.devices ?? []) {
            const labels = { node: node.name, device: String(device.index) };
            for (const { gauge, read } of deviceGauges) {
              const value = read(device);
              if (value !== null) gauge.set(labels, value);
            }
          }
        }
      },
    });
  }

  #counter(name: string, help: string): ModelCounter {
    return new Counter({ name, help, labelNames: ['model', 'node'], registers: [this.registry] });
  }

  #reasons(name: string, help: string): Counter<'model' | 'node' | 'reason'> {
    return new Counter({ name, help, labelNames: ['model', 'node', 'reason'], registers: [this.registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram<'model' | 'node'> {
    return new Histogram({ name, help, labelNames: ['model', 'node'], buckets, registers: [this.registry] });
  }
}

type Health = NonNullable<NodeState['health']>;
type ModelReading = Health['models'][number];
type DeviceReading = Health['devices'][number];

const nodeReadings: Readonly<Record<string, (node: NodeState) => number>> = {
  cortex_node_healthy: (node) => Number(node.healthy),
  cortex_node_in_service: (node) => Number(node.healthy && node.service.refusal === null),
};

const modelReadings: Readonly<Record<string, (model: ModelReading) => number>> = {
  cortex_model_in_flight: (model) => model.in_flight,
  cortex_model_queue_depth: (model) => model.queue_depth,
  cortex_model_max_in_flight: (model) => model.max_in_flight,
  cortex_model_max_queue_depth: (model) => model.max_queue_depth,
  cortex_model_tok_s_prefill: (model) => model.tok_s_prefill,
  cortex_model_tok_s_decode: (model) => model.tok_s_decode,
  cortex_model_anon_in_flight: (model) => model.anon_in_flight,
  cortex_model_anon_max_in_flight: (model) => model.anon_max_in_flight,
};

const deviceReadings: Readonly<Record<string, (device: DeviceReading) => number | null>> = {
  cortex_device_vram_used_mb: (device) => device.vram_used_mb,
  cortex_device_vram_free_mb: (device) => device.vram_free_mb,
  cortex_device_utilization_pct: (device) => device.utilization_pct,
  cortex_device_temp_c: (device) => device.temp_c,
};

function rejectionsOf(model: ModelReading): Readonly<Record<string, number>> {
  return {
    queue_full: model.rejected_queue_full,
    wait_timeout: model.rejected_timeout,
    per_principal: model.rejected_per_principal,
    anon_yield: model.rejected_anon_yield,
    kv_timeout: model.rejected_kv_timeout,
    kv_unservable: model.rejected_kv_unservable,
  };
}
