/** One neuron of `cortex up`, as a process and as what its API says of its loads. */
import { join } from 'node:path';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { discoverySchema, healthSchema, type LoadProgress, type NeuronHealth } from 'cortex-core/wire/neuron';
import { CliError } from './cli-error.ts';
import { GatewayClient } from './gateway-client.ts';
import type { LocalNode } from './local-nodes.ts';
import { type NeuronAddress, type NeuronDeath, NeuronProcess } from './neuron-process.ts';
import { distDir } from './terminal.ts';

export interface UpNeuronEvents {
  /** Only after `isUp`. */
  readonly onDeath: (neuron: UpNeuron, death: NeuronDeath) => void;
  readonly onRestart: (neuron: UpNeuron, address: NeuronAddress) => void;
  readonly onLoaded: (neuron: UpNeuron, id: string) => void;
  readonly onFailed: (neuron: UpNeuron, id: string, error: string) => void;
  readonly onProgress: (progress: LoadProgress) => void;
}

const loadPollMs = 100;

export class UpNeuron {
  /** null = that of the machine. */
  readonly name: string | null;
  readonly memoryMb: number | null;
  readonly #node: LocalNode;
  readonly #events: UpNeuronEvents;
  readonly #logFile: string;
  readonly #process: NeuronProcess;
  #client: GatewayClient | null = null;
  /** Set by a child that died before the address was out. */
  #earlyDeath: NeuronDeath | null = null;
  isUp = false;

  constructor(node: LocalNode, logDir: string, events: UpNeuronEvents) {
    this.name = node.name;
    this.memoryMb = node.config.cpu.memory_mb;
    this.#node = node;
    this.#events = events;
    this.#logFile = join(logDir, node.logName);
    this.#process = new NeuronProcess({
      entry: join(distDir, 'neuron-main.js'),
      config: node.config,
      logFile: this.#logFile,
      clock: systemClock,
      onDeath: (death) => {
        if (this.isUp) events.onDeath(this, death);
        else this.#earlyDeath = death;
      },
      onRestart: (address) => events.onRestart(this, address),
    });
  }

  async start(): Promise<NeuronAddress> {
    const address = await this.#process.start();
    this.#client = new GatewayClient({ endpoint: address.url, apiKey: this.#node.config.key });
    return address;
  }

  /** Null when it is not there to be told; it is started anew with what was told last. */
  reload(config: NeuronConfig): Promise<ReloadReport | null> {
    return this.#process.reload(config);
  }

  async discovery() {
    return discoverySchema.parse(await this.#client?.get('/discovery'));
  }

  async health(): Promise<NeuronHealth> {
    return healthSchema.parse(await this.#client?.get('/health'));
  }

  /** The models that are loaded, once every load has ended. Throws when the child died meanwhile. */
  async awaitModels(signal: AbortSignal): Promise<readonly string[]> {
    const told = new Set<string>();
    for (;;) {
      if (this.#earlyDeath !== null) throw this.#toDeathError(this.#earlyDeath);
      const health = await this.health().catch(() => null);
      if (health !== null) {
        this.#tell(health, told);
        if (health.activation.state === 'ready') return health.activation.completed;
      }
      await systemClock.sleep(loadPollMs, signal);
    }
  }

  close(): Promise<void> {
    return this.#process.close();
  }

  kill(): void {
    this.#process.kill();
  }

  #tell({ activation, loading }: NeuronHealth, told: Set<string>): void {
    for (const id of activation.completed) {
      if (told.has(id)) continue;
      told.add(id);
      this.#events.onLoaded(this, id);
    }
    for (const { model_id: id, error } of activation.failed) {
      if (told.has(id)) continue;
      told.add(id);
      this.#events.onFailed(this, id, error);
    }
    for (const progress of loading) this.#events.onProgress(progress);
  }

  #toDeathError(death: NeuronDeath): CliError {
    const tail = death.logTail.map((line) => `\n  ${line}`).join('');
    const who = this.name ?? 'the neuron';
    return new CliError(`${who} ended while it loaded models (${death.cause}); see ${this.#logFile}${tail}`);
  }
}
