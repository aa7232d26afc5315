/**
 * A neuron that a test scripts: the lifecycle API, and chat whose every chunk, stall and failure the test
 * chooses.
 */
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';

export interface FakeModel {
  readonly id: string;
  readonly vramMb: number;
  status: 'loaded' | 'loading' | 'recovering' | 'poisoned' | 'available';
  devices: number[];
  servable?: { ok: boolean; reason?: string; detail?: string };
  context?: number;
}

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

export interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}

export interface Refusal {
  readonly status: number;
  readonly body: unknown;
}

const bodyBytesMax = 64 * 1024 * 1024;

export class FakeNeuron {
  readonly name: string;
  readonly models = new Map<string, FakeModel>();
  readonly counters = { discovery: 0, health: 0, models: 0, loads: 0, unloads: 0, chats: 0, aborted: 0 };
  /** What happened, in order: `load m`, `unload m`, `chat m`. */
  readonly events: string[] = [];
  readonly loadSpecs: unknown[] = [];
  readonly chats: ChatCall[] = [];
  /** Called before a load succeeds; may wait, or return a refusal. */
  onLoad: (spec: { readonly model_id: string }) => Promise<Refusal | undefined> | Refusal | undefined = () =>
    undefined;
  onUnload: (id: string) => Promise<Refusal | undefined> | Refusal | undefined = () => undefined;
  onChat: (call: ChatCall) => Promise<void> | void = (call) => answerWords(call, ['Hello', ' world']);
  /** Lifecycle GETs answer 500 while true. */
  failing = false;
  /** in_flight to report per model, instead of 0. */
  readonly reportedInFlight = new Map<string, number>();
  /** What each model says it takes at once; 0 = it does not say. */
  slots = { max_in_flight: 0, max_queue_depth: 0 };
  loading: { model_id: string; phase: string; percent: number; eta_secs: number | null }[] = [];
  readonly #deviceMb: readonly number[];
  readonly #server: Server;
  readonly #waits = new Set<{ readonly test: () => boolean; readonly resolve: () => void }>();
  readonly #startedMs = performance.now();
  #port = 0;

  constructor(options: FakeNeuronOptions) {
    this.name = options.name ?? 'fake';
    this.#deviceMb = options.devices ?? [16_000];
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
      case '/models/unload':
        return await this.#unload(JSON.parse(body.toString()), response);
      case '/v1/chat/completions':
      case '/v1/completions':
      case '/v1/embeddings':
      case '/v1/rerank':
        return await this.#chat(path, request, response, body);
      default:
        return sendJson(response, 404, { error: `no ${path}` });
    }
  }

  async #load(spec: { model_id: string; devices?: number[] }, response: ServerResponse): Promise<void> {
    this.counters.loads++;
    this.events.push(`load ${spec.model_id}`);
    this.loadSpecs.push(spec);
    this.#notify();
    const refusal = await this.onLoad(spec);
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    const known = this.models.get(spec.model_id);
    const devices = spec.devices ?? known?.devices ?? [0];
    this.models.set(spec.model_id, { vramMb: 1000, ...known, id: spec.model_id, status: 'loaded', devices });
    sendJson(response, 200, { status: 'loaded' });
  }

  async #unload({ model_id: id }: { model_id: string }, response: ServerResponse): Promise<void> {
    this.counters.unloads++;
    this.events.push(`unload ${id}`);
    this.#notify();
    const refusal = await this.onUnload(id);
    if (refusal !== undefined) return sendJson(response, refusal.status, refusal.body);
    const model = this.models.get(id);
    if (model?.status !== 'loaded') return sendJson(response, 404, { error: `model '${id}' not loaded` });
    model.status = 'available';
    sendJson(response, 200, { status: 'unloaded' });
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
      devices: this.#deviceMb.map((mb, index) => ({
        index,
        name: `fake${index}`,
        kind: 'cpu',
        vram_total_mb: mb,
      })),
      harnesses: ['llamacpp'],
      package_version: 'fake',
    };
  }

  #health(): unknown {
    const used = this.#deviceMb.map((_, index) => {
      const here = [...this.models.values()].filter(
        (m) => m.status === 'loaded' && m.devices.includes(index),
      );
      return here.reduce((sum, model) => sum + model.vramMb / model.devices.length, 0);
    });
    return {
      uptime_secs: Math.floor((performance.now() - this.#startedMs) / 1000),
      devices: this.#deviceMb.map((mb, index) => ({
        index,
        vram_used_mb: used[index] ?? 0,
        vram_free_mb: mb - (used[index] ?? 0),
        utilization_pct: null,
        temp_c: null,
      })),
      activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
      models: [...this.models.values()]
        .filter((model) => model.status === 'loaded')
        .map(({ id }) => ({
          id,
          in_flight: this.reportedInFlight.get(id) ?? 0,
          queue_depth: 0,
          ...this.slots,
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

/** A promise that a test opens by hand. */
export function createGate(): Gate {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Answers as a neuron does, streamed or whole, with these words. */
export function answerWords(call: ChatCall, words: readonly string[]): void {
  const request = JSON.parse(call.body.toString()) as { model: string; stream?: boolean };
  if (request.stream === true) {
    call.response.writeHead(200, { 'content-type': 'text/event-stream' });
    call.response.end(chatStream(request.model, words));
    return;
  }
  sendJson(call.response, 200, {
    id: 'chatcmpl-fake',
    object: 'chat.completion',
    created: 1,
    model: request.model,
    choices: [{ index: 0, message: { role: 'assistant', content: words.join('') }, finish_reason: 'stop' }],
    usage: usageOf(words),
  });
}

/** The SSE text of a chat answer, from the role chunk to `[DONE]`. */
export function chatStream(model: string, words: readonly string[], finish = 'stop'): string {
  const chunk = (choices: unknown[], more: object = {}): string => {
    const frame = {
      id: 'chatcmpl-fake',
      object: 'chat.completion.chunk',
      created: 1,
      model,
      choices,
      ...more,
    };
    return `data: ${JSON.stringify(frame)}\n\n`;
  };
  const delta = (value: object, reason: string | null = null): string =>
    chunk([{ index: 0, delta: value, finish_reason: reason }]);
  return [
    delta({ role: 'assistant', content: '' }),
    ...words.map((content) => delta({ content })),
    delta({}, finish),
    chunk([], { usage: usageOf(words) }),
    'data: [DONE]\n\n',
  ].join('');
}

function usageOf(words: readonly string[]): unknown {
  const usage = { prompt_tokens: 10, completion_tokens: words.length, total_tokens: 10 + words.length };
  return { ...usage, prompt_tokens_details: { cached_tokens: 4 } };
}

function toRow(model: FakeModel): unknown {
  return {
    id: model.id,
    harness: 'llamacpp',
    status: model.status,
    devices: model.status === 'loaded' ? model.devices : [],
    vram_used_mb: model.status === 'loaded' ? model.vramMb : null,
    vram_estimate_mb: model.vramMb,
    capabilities: ['text'],
    ...(model.servable === undefined ? {} : { servable: model.servable }),
    ...(model.context === undefined ? {} : { limit: { context: model.context, output: model.context } }),
  };
}

function modelOf(body: Buffer): string {
  try {
    return String((JSON.parse(body.toString()) as { model?: unknown }).model);
  } catch {
    return '';
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyBytesMax) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
