/**
 * The real gateway in front of a real neuron whose device says what a test lets it say: templates, tool
 * parsing, admission, streams and dialects are the product's, only the weights are not there. A token is four
 * characters. Before the gateway stands a recorder, through which a client's requests and the answers' bytes
 * are seen as they cross.
 */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from 'cortex-core/config/load';
import { silentLog } from 'cortex-core/daemon/log';
import { startGateway } from 'cortex-gateway/gateway';
import { ScriptedDevice } from 'neuron/api/scripted-device.test.kit';
import { startNeuron } from 'neuron/neuron';

const repoRoot = fileURLToPath(new URL('../../../../', import.meta.url));
const tinyFile = join(repoRoot, 'models', 'cortex-tiny', 'cortex-tiny.gguf');
const templates = join(repoRoot, 'packages', 'neuron', 'src', 'chat', 'fixtures', 'templates');
const piece = 7;

/** What the model writes after a rendered prompt. */
export type Script = (prompt: string) => string;

export interface RecordedCall {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly status: number;
  readonly answerType: string;
  readonly answer: Buffer;
}

export interface ScriptedStack {
  /** The recorder's address, without /v1. */
  readonly url: string;
  readonly device: ScriptedDevice;
  /** What reached the model, in order. */
  readonly prompts: readonly string[];
  /** Whole exchanges, in the order in which they ended. */
  readonly calls: readonly RecordedCall[];
  /** The gateway's metrics page. */
  metrics(): Promise<string>;
  close(): Promise<void>;
}

export interface ScriptedStackOptions {
  /** Name of a template in the neuron's fixtures. */
  readonly template: string;
  readonly script: Script;
  readonly aliases?: Readonly<Record<string, string>>;
  /** Tokens of the model's context; 32,768 unless told otherwise. */
  readonly context?: number;
}

/** Tokens of four characters, about as long as those of real vocabularies on English and code. */
class WideDevice extends ScriptedDevice {
  readonly #pieces: string[] = [''];
  readonly #ids = new Map<string, number>();

  override async tokenize(_handle: number, text: string): Promise<Int32Array> {
    this.jobs.tokenize++;
    const tokens: number[] = [];
    for (let at = 0; at < text.length; at += 4) tokens.push(this.#idOf(text.slice(at, at + 4)));
    return Int32Array.from(tokens);
  }

  override async detokenize(_handle: number, tokens: Int32Array): Promise<string> {
    return this.textOf(tokens);
  }

  textOf(tokens: Int32Array): string {
    return Array.from(tokens, (token) => this.#pieces[token] ?? '').join('');
  }

  #idOf(piece: string): number {
    const known = this.#ids.get(piece);
    if (known !== undefined) return known;
    this.#ids.set(piece, this.#pieces.length);
    return this.#pieces.push(piece) - 1;
  }
}

export async function startScriptedStack(options: ScriptedStackOptions): Promise<ScriptedStack> {
  const device = new WideDevice();
  device.chatTemplate = readFileSync(join(templates, `${options.template}.jinja`), 'utf8');
  const neuron = await startNeuron(
    loadConfig('neuron', {
      defaults: {
        listen: '127.0.0.1',
        port: 0,
        engine: { context: options.context ?? 32_768, slots: 4, threads: 1 },
        models: { hf_cache: join(tmpdir(), 'no-such-hub') },
        default_models: [{ model_id: tinyFile }],
      },
    }),
    { log: silentLog, devices: [{ indices: [0], kind: 'cpu', device, budgetMb: 1000 }] },
  );
  await neuron.activated;
  const gateway = await startGateway(
    loadConfig('cortex', {
      defaults: {
        gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0' },
        neurons: [{ name: 'here', endpoint: neuron.url }],
      },
    }),
    loadConfig('models', { defaults: { aliases: { ...options.aliases } } }),
    { log: silentLog },
  );
  const prompts: string[] = [];
  const play = async (): Promise<never> => {
    for (;;) {
      const generation = await device.next();
      const prompt = device.textOf(generation.params.tokens);
      prompts.push(prompt);
      const text = options.script(prompt);
      for (let at = 0; at < text.length; at += piece) generation.emit(text.slice(at, at + piece));
      generation.finish();
    }
  };
  void play();
  const recorder = await startRecorder(gateway.url);
  return {
    url: recorder.url,
    device,
    prompts,
    calls: recorder.calls,
    metrics: async () => (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text(),
    close: async () => {
      await recorder.close();
      await gateway.close();
      await neuron.close();
    },
  };
}

interface Recorder {
  readonly url: string;
  readonly calls: readonly RecordedCall[];
  close(): Promise<void>;
}

/** Passes everything on and keeps it. */
async function startRecorder(target: string): Promise<Recorder> {
  const calls: RecordedCall[] = [];
  const server = createServer((incoming, outgoing) => {
    const body: Buffer[] = [];
    const { method = 'GET', url: path = '/', headers } = incoming;
    const forward = request(new URL(path, target), { method, headers }, (answer) => {
      const bytes: Buffer[] = [];
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.on('data', (chunk: Buffer) => {
        bytes.push(chunk);
        outgoing.write(chunk);
      });
      answer.on('error', () => outgoing.destroy());
      answer.on('end', () => {
        calls.push({
          method,
          path,
          headers,
          body: Buffer.concat(body).toString('utf8'),
          status: answer.statusCode ?? 0,
          answerType: String(answer.headers['content-type'] ?? ''),
          answer: Buffer.concat(bytes),
        });
        outgoing.end();
      });
    });
    forward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => {
      if (!outgoing.writableFinished) forward.destroy();
    });
    incoming.on('data', (chunk: Buffer) => {
      body.push(chunk);
      forward.write(chunk);
    });
    incoming.on('end', () => forward.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
