import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import type { Clock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { Activation, Discovery, NeuronHealth, NeuronVersion } from 'cortex-core/wire/neuron';
import type { PromptModels } from '../models/prompt-models.ts';
import type { ModelRegistry } from '../models/registry.ts';
import type { NeuronMetrics } from './metrics.ts';

/** What the routes work on. Functions where the answer changes, and where it is not known at the start. */
export interface ApiDeps {
  readonly config: NeuronConfig;
  readonly registry: ModelRegistry;
  /** Null where the devices were given, without a library: then loaded models alone can be counted with. */
  readonly promptModels: PromptModels | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: NeuronMetrics;
  readonly version: () => NeuronVersion;
  readonly discovery: () => Promise<Discovery>;
  /** Differs in each life of the daemon: a gateway sees by it that another one answers at its address. */
  readonly instance: string;
  readonly deviceHealth: () => Promise<NeuronHealth['devices']>;
  readonly activation: () => Activation;
  readonly uptimeSecs: () => number;
  /** As whoever asks reaches this neuron; `host`: the header of its request. */
  readonly baseUrl: (host: string | null) => string;
}
