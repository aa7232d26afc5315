/** One machine's whole stack inside the test: real neuron, real gateway, real weights, ports of their own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from 'cortex-core/config/load';
import { silentLog } from 'cortex-core/daemon/log';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import { type Neuron, startNeuron } from 'neuron/neuron';
import { hangMs } from 'testkit/hang';

export type Transport = 'thread' | 'process';

const repoRoot = fileURLToPath(new URL('../../../', import.meta.url));
const tinyDir = join(repoRoot, 'models', 'cortex-tiny');
export const tinyFile = join(tinyDir, 'cortex-tiny.gguf');

export interface Stack {
  readonly gateway: Gateway;
  readonly neuron: Neuron;
  /** Base of the gateway's OpenAI API, with /v1. */
  readonly baseUrl: string;
  /** Rejects when any stream of any dialect broke its grammar on the way to its client. */
  close(): Promise<void>;
}

export interface StackOptions {
  readonly transport: Transport;
  readonly dirs?: readonly string[];
  /** Models loaded at start; cortex-tiny unless told otherwise. */
  readonly preload?: readonly string[];
  readonly memoryMb?: number;
  /** Tokens a sequence may hold; 2048 unless told otherwise. */
  readonly context?: number;
  /** The neuron's NEURON_FAULT. */
  readonly fault?: string;
  /** Further keys of cortex.toml's [gateway]. */
  readonly gateway?: Readonly<Record<string, unknown>>;
  /** cortex.toml's [entitlements]. */
  readonly entitlements?: Readonly<Record<string, unknown>>;
}

/** Resolves when the models of `preload` are loaded and the gateway knows. */
export async function startStack(options: StackOptions): Promise<Stack> {
  const cache = mkdtempSync(join(tmpdir(), 'cortex-e2e-'));
  const neuron = await startNeuron(
    loadConfig('neuron', {
      defaults: {
        listen: '127.0.0.1',
        port: 0,
        device_worker: options.transport,
        // one thread: ggml's threads wait for each other by spinning, which busy test machines punish
        engine: { context: options.context ?? 2048, slots: 4, threads: 1 },
        cpu: options.memoryMb === undefined ? {} : { memory_mb: options.memoryMb },
        models: { dirs: [...(options.dirs ?? [tinyDir])], hf_cache: cache },
        default_models: (options.preload ?? ['cortex-tiny']).map((id) => ({ model_id: id })),
      },
    }),
    {
      log: silentLog,
      ...(options.fault === undefined ? {} : { env: { ...process.env, NEURON_FAULT: options.fault } }),
    },
  );
  await neuron.activated;
  const gateway = await startGateway(
    loadConfig('cortex', {
      defaults: {
        gateway: {
          ...{ listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', stream_check_every: 1 },
          ...options.gateway,
        },
        entitlements: { ...options.entitlements },
        neurons: [{ name: 'here', endpoint: neuron.url }],
      },
    }),
    loadConfig('models', {}),
    { log: silentLog },
  );
  return {
    gateway,
    neuron,
    baseUrl: `${gateway.url}/v1`,
    close: async () => {
      const faults = await streamFaults(gateway);
      await gateway.close();
      await neuron.close();
      rmSync(cache, { recursive: true, force: true });
      if (faults.length > 0) throw new Error(`streams broke their grammar: ${faults.join(', ')}`);
    },
  };
}

/** Rules of their dialects that streams of this gateway have broken, as its metrics tell them. */
async function streamFaults({ metricsPort }: Gateway): Promise<readonly string[]> {
  const scraped = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return scraped.match(/^cortex_stream_protocol_errors_total\{.*\} [1-9].*$/gm) ?? [];
}

/** Resolves when the neuron runs nothing, with the tokens of all answers that it gave to their end. */
export async function tokensWhenIdle({ neuron }: Stack): Promise<number> {
  const late = AbortSignal.timeout(hangMs);
  for (;;) {
    const health = (await (await fetch(`${neuron.url}/health`)).json()) as {
      readonly models: readonly { readonly in_flight: number }[];
    };
    if (health.models.every(({ in_flight: running }) => running === 0)) break;
    if (late.aborted) throw new Error(`the neuron does not come to rest: ${JSON.stringify(health.models)}`);
  }
  const scraped = await (await fetch(`${neuron.url}/metrics`)).text();
  const counts = [...scraped.matchAll(/^neuron_completion_tokens_total\{.*\} (\d+)$/gm)];
  return counts.reduce((sum, [, count]) => sum + Number(count), 0);
}

export function postJson(
  url: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(url, { method: 'POST', body: JSON.stringify(body), headers });
}
