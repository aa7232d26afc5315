/**
 * A neuron that a test scripts: the lifecycle API, and chat whose every chunk, stall and failure the test
 * chooses.
 */
import { randomUUID } from 'node:crypto';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { instanceHeader } from 'cortex-core/wire/neuron';
import { answerWords } from './fake-answers.ts';
import { drip, readAll, sendJson } from './fake-http.ts';
import { FakeLoads, type Refusal } from './fake-loads.ts';
import { type FakeModel, type FakeUse, isUnusedSince, toRow, type UnloadSpec } from './fake-model.ts';

export { answerBehind, answerWords, chatStream, tellFrames } from './fake-answers.ts';
export type { FakeModel } from './fake-model.ts';
export { createGate } from './gate.ts';

export interface FakeNeuronOptions {
  readonly name?: string;
  /** MiB of each device. */
  readonly devices?: readonly number[];
  readonly models?: readonly (Partial<FakeModel> & { readonly id: string })[];
  readonly port?: number;
}

export interface ChatCall {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly response: ServerResponse;
  /** Resolves when the connection closed before the answer ended. */
  readonly aborted: Promise<void>;
}

interface LoadSpec {
  readonly model_id: string;
  readonly devices?: number[];
}

export class FakeNeuron {
  readonly name: string;
  readonly models = new Map<string, FakeModel>();
  readonly counters = {
    discovery: 0,
    health: 0,
    models: 0,
    loads: 0,
    unloads: 0,
    cancels: 0,
    moves: 0,
    recycles: 0,
    chats: 0,
    aborted: 0,
  };
  /** Who answers, as discovery and health say; null = a neuron too old to say. */
  instance: string | null = randomUUID();
  /** What happened, in order: `load m`, `unload m`, `move m 0>1`, `recycle 0`, `chat m`. */
  readonly events: string[] = [];
  /** Every path that was asked for. */
  readonly paths = new Set<string>();
  readonly loadSpecs: unknown[] = [];
  readonly chats: ChatCall[] = [];
  /** Called before a load succeeds; may wait, or return a refusal. */
  onLoad: (spec: { readonly model_id: string }) => Promise<Refusal | undefined> | Refusal | undefined = () =>
    undefined;
  onUnload: (id: string, spec: UnloadSpec) => Promise<Refusal | undefined> | Refusal | undefined = () =>
    undefined;
  /** Tokens of a chat request that is counted, loaded or not; a refusal for what cannot be. */
  onCount: (request: { readonly model: string }) => number | Refusal = () => 7;
  /** Called while the model is on both devices. */
  onMove: (id: string) => Promise<Refusal | undefined> | Refusal | undefined = () => undefined;
  onRecycle: (device: number) => Promise<Refusal | undefined> | Refusal | undefined = () => undefined;
  onChat: (call: ChatCall) => Promise<void> | void = (call) => answerWords(call, ['Hello', ' world']);
  /** Lifecycle GETs answer 500 while true. */
  failing = false;
  /** `silent`: takes requests and never answers. `drip`: answers with a byte a millisecond, without end. */
  manner: 'normal' | 'silent' | 'drip' = 'normal';
  /** What /discovery says beside the devices. */
  discoveryExtras: Readonly<Record<string, unknown>> = {};
  /** in_flight to report per model, instead of 0. */
  readonly reportedInFlight = new Map<string, number>();
  /** Further fields of the model's row in /health, e.g. its rates. */
  readonly reportedLoad = new Map<string, object>();
  /** How each model was used, to report; an unload that saw another use is refused. */
  readonly use = new Map<string, FakeUse>();
  /** Free MiB to report per device, instead of what the models leave; null = no reading. */
  readonly reportedFreeMb = new Map<number, number | null>();
  loading: {
    model_id: string;
    phase: string;
    percent: number;
    eta_secs: number | null;
    bytes_done?: number;
    bytes_total?: number;
  }[] = [];
  /** MiB of each device; a test may change it, as a machine that came back with others. */
  deviceMb: readonly number[];
  readonly #loads = new FakeLoads();
  readonly #loadCycles: number[];
  /** What each model says it takes at once; 0 = it does not say. */
  slots = { max_in_flight: 0, max_queue_depth: 0 };
  readonly #server: Server;
  readonly #waits = new Set<{ readonly test: () => boolean; readonly resolve: () => void }>();
  readonly #startedMs = performance.now();
  #port = 0;

  constructor(options: FakeNeuronOptions) {
    this.name = options.name ?? 'fake';
    this.deviceMb = options.devices ?? [16_000];
    this.#loadCycles = this.deviceMb.map(() => 0);
    for (const model of options.models ?? []) this.addModel(model);
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  addModel(model: Partial<FakeModel> & { readonly id: string }): void {
    this.models.set(model.id, { vramMb: 1000, status: 'available', devices: [0], ...model });
  }

  listen(port = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host: '127.0.0.1', port }, () => {
        this.#port = (this.#server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  /** Resolves when `test` holds; looked at after each request and each end of one. */
  until(test: () => boolean): Promise<void> {
    if (test()) return Promise.resolve();
    return new Promise((resolve) => this.#waits.add({ test, resolve }));
  }

  /** As a killed process: every connection is reset. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  #notify(): void {
    for (const wait of this.#waits) {
      if (!wait.test()) continue;
      this.#waits.delete(wait);
      wait.resolve();
    }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const body = await readAll(request);
      await this.#route(request, response, body);
    } catch {
      response.destroy();
    }
    this.#notify();
  }

  async #route(request: IncomingMessage, response: ServerResponse, body: Buffer): Promise<void> {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    this.paths.add(path);
    if (this.instance !== null) response.setHeader(instanceHeader, this.instance);
    if (this.manner === 'silent') return;
    if (this.manner === 'drip') return drip(response);
    if (request.method === 'GET' && this.failing) return sendJson(response, 500, { error: 'told to fail' });
    switch (path) {
      case '/discovery':
        this.counters.discovery++;
        return sendJson(response, 200, this.#discovery());
      case '/health':
        this.counters.health++;
        return sendJson(response, 200, this.#health());
      case '/models':
        this.counters.models++;
        return sendJson(response, 200, [...this.models.values()].map(toRow));
      case '/models/load':
        return await this.#load(JSON.parse(body.toString()), response);
      case '/models/cancel':
        return this.#cancel(JSON.parse(body.toString()), response);
      case '/models/unload':
        return await this.#unload(JSON.parse(body.toString()), response);
      case '/v1/chat/completions/input_tokens':
        return this.#count(body, response);
      case '/models/move':
        return await this.#move(JSON.parse(body.toString()), response);
      case '/devices/recycle':
        return await this.#recycle(JSON.parse(body.toString()), response);
      case '/v1/chat/completions':
      case '/v1/completions':
      case '/v1/embeddings':
      case '/v1/rerank':
        return await this.#chat(path, request, response, body);
      default:
        return sendJson(response, 404, { error: `no ${path}` });
    }
  }

  #count(body: Buffer, response: ServerResponse): void {
    const request = JSON.parse(body.toString()) as { readonly model: string };
    this.events.push(`count ${request.model}`);
    const counted = this.onCount(request);
    if (typeof counted !== 'number') sendJson(response, counted.status, counted.body);
    else sendJson(response, 200, { object: 'chat.completion.input_tokens', input_tokens: counted });
  }

  /** One load per model: who comes later attaches to it, as at a neuron. */
  async #load(spec: LoadSpec, response: ServerResponse): Promise<void> {
    const id = spec.model_id;
    this.events.push(`load ${id}`);
    if (this.models.get(id)?.status === 'loaded') {
      this.#notify();
      const error = `model '${id}' already loaded`;
      return sendJson(response, 400, { error, code: 'invalid_request' });
    }
    const outcome = this.#loads.run(id, () => {
      this.counters.loads++;
      this.loadSpecs.push(spec);
      return this.onLoad(spec);
    });
    await Promise.resolve();
    this.#notify();
    const refusal = await outcome;
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    const known = this.models.get(id);
    const devices = spec.devices ?? known?.devices ?? [0];
    this.models.set(id, { vramMb: 1000, ...known, id, status: 'loaded', devices });
    sendJson(response, 200, { status: 'loaded' });
  }

  #cancel({ model_id: id }: LoadSpec, response: ServerResponse): void {
    this.counters.cancels++;
    this.events.push(`cancel ${id}`);
    const status = this.#loads.cancel(id) ? 'cancelled' : 'not_loading';
    sendJson(response, 200, { status });
  }

  async #unload(spec: UnloadSpec, response: ServerResponse): Promise<void> {
    const { model_id: id, unused_since: since } = spec;
    this.counters.unloads++;
    this.events.push(`unload ${id}`);
    this.#notify();
    const refusal = await this.onUnload(id, spec);
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    const model = this.models.get(id);
    if (model?.status !== 'loaded') return sendJson(response, 404, { error: `model '${id}' not loaded` });
    const isBusy = (this.reportedInFlight.get(id) ?? 0) > 0;
    if (since !== undefined && (isBusy || !isUnusedSince(this.use.get(id), since))) {
      return sendJson(response, 409, { error: `model '${id}' was used since`, code: 'model_in_use' });
    }
    model.status = 'available';
    for (const device of model.devices) this.#loadCycles[device] = (this.#loadCycles[device] ?? 0) + 1;
    sendJson(response, 200, { status: 'unloaded' });
  }

  async #move(
    { model_id: id, devices }: { model_id: string; devices: number[] },
    response: ServerResponse,
  ): Promise<void> {
    const model = this.models.get(id);
    if (model?.status !== 'loaded') return sendJson(response, 404, { error: `model '${id}' not loaded` });
    const [to = 0] = devices;
    this.counters.moves++;
    this.events.push(`move ${id} ${model.devices.join('+')}>${devices.join('+')}`);
    this.#notify();
    if (this.#freeMb(to) < model.vramMb) {
      const error = `model "${id}" needs ${model.vramMb} MiB on device ${to}, ${this.#freeMb(to)} MiB free`;
      return sendJson(response, 503, { error, code: 'insufficient_vram' });
    }
    const refusal = await this.onMove(id);
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    model.devices = devices;
    sendJson(response, 200, { status: 'moved' });
  }

  async #recycle({ device }: { device: number }, response: ServerResponse): Promise<void> {
    this.counters.recycles++;
    this.events.push(`recycle ${device}`);
    this.#notify();
    const refusal = await this.onRecycle(device);
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    this.#loadCycles[device] = 0;
    const here = [...this.models.values()].filter(
      (model) => model.status === 'loaded' && model.devices.includes(device),
    );
    const transferred = here.map((model) => model.id);
    sendJson(response, 200, { status: 'recycled', transferred, reloaded: [], failed: [] });
  }

  #freeMb(device: number): number {
    const here = [...this.models.values()].filter((m) => m.status === 'loaded' && m.devices.includes(device));
    const used = here.reduce((sum, model) => sum + model.vramMb / model.devices.length, 0);
    return (this.deviceMb[device] ?? 0) - used;
  }

  async #chat(path: string, request: IncomingMessage, response: ServerResponse, body: Buffer): Promise<void> {
    this.counters.chats++;
    const aborted = new Promise<void>((resolve) => {
      response.once('close', () => {
        if (response.writableFinished) return;
        this.counters.aborted++;
        this.#notify();
        resolve();
      });
    });
    const call: ChatCall = { path, headers: request.headers, body, response, aborted };
    this.chats.push(call);
    const id = modelOf(body);
    this.events.push(`chat ${id}`);
    this.#notify();
    if (this.models.get(id)?.status !== 'loaded') {
      const error = {
        message: `model '${id}' not loaded`,
        type: 'invalid_request_error',
        code: 'model_not_loaded',
      };
      return sendJson(response, 404, { error });
    }
    await this.onChat(call);
  }

  #discovery(): unknown {
    return {
      hostname: this.name,
      os: 'linux',
      kernel: '0',
      cuda_version: null,
      driver_version: null,
      devices: this.deviceMb.map((mb, index) => ({
        index,
        name: `fake${index}`,
        kind: 'cpu',
        vram_total_mb: mb,
      })),
      harnesses: ['llamacpp'],
      package_version: 'fake',
      wire_version: 1,
      instance: this.instance,
      ...this.discoveryExtras,
    };
  }

  #health(): unknown {
    return {
      uptime_secs: Math.floor((performance.now() - this.#startedMs) / 1000),
      instance: this.instance,
      devices: this.deviceMb.map((mb, index) => {
        const told = this.reportedFreeMb.get(index);
        const free = told === undefined ? this.#freeMb(index) : told;
        return {
          index,
          vram_used_mb: free === null ? null : mb - free,
          vram_free_mb: free,
          utilization_pct: null,
          temp_c: null,
          load_cycles: this.#loadCycles[index] ?? 0,
        };
      }),
      activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
      models: [...this.models.values()]
        .filter((model) => model.status === 'loaded')
        .map(({ id }) => ({
          ...{ id, in_flight: this.reportedInFlight.get(id) ?? 0, queue_depth: 0 },
          ...this.slots,
          ...(this.use.has(id) ? { use: this.use.get(id) } : {}),
          ...this.reportedLoad.get(id),
        })),
      loading: this.loading,
    };
  }
}

export async function startFakeNeuron(options: FakeNeuronOptions = {}): Promise<FakeNeuron> {
  const neuron = new FakeNeuron(options);
  await neuron.listen(options.port);
  return neuron;
}

function modelOf(body: Buffer): string {
  try {
    return String((JSON.parse(body.toString()) as { model?: unknown }).model);
  } catch {
    return '';
  }
}
