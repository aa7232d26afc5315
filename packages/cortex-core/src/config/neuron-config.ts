/** neuron.toml: the daemon of one machine. Every key is optional; an empty file is a working neuron. */
import { z } from 'zod';
import { kvCacheTypes } from '../wire/inference.ts';
import { modelSpecSchema } from '../wire/neuron.ts';
import {
  httpUrl,
  logSection,
  nonEmpty,
  nonNegativeInt,
  positiveInt,
  positiveSeconds,
  seconds,
  unique,
} from './fields.ts';

const huggingface = { endpoint: 'https://huggingface.co', auth_env: 'HF_TOKEN' } as const;

const cacheType = () => z.enum(kvCacheTypes).default('f16');

const engineSchema = z.strictObject({
  native_log: z.boolean().default(false).describe("Write libllama's own log to stderr."),
  threads: positiveInt()
    .max(1024)
    .optional()
    .describe('CPU threads for a step; the physical cores when left out, one for tiny models.'),
  context: z
    .union([z.int().min(16), z.literal('auto')])
    .default(4096)
    .describe(
      'Context window in tokens for a load that names none; "auto" = what the model and the memory allow.',
    ),
  slots: z
    .union([positiveInt().max(256), z.literal('auto')])
    .default('auto')
    .describe(
      'Requests a model runs at once; "auto" = 4, or fewer where even the empty device has no room for ' +
        'so many.',
    ),
  batch: positiveInt().default(2048).describe('Most tokens in one step (n_batch).'),
  ubatch: positiveInt().default(512).describe('Most tokens in one pass through the graph (n_ubatch).'),
  cache_type_k: cacheType().describe('Type of the keys in the KV cache.'),
  cache_type_v: cacheType().describe('Type of the values in the KV cache; below f16 needs flash attention.'),
  flash_attention: z
    .boolean()
    .optional()
    .describe('Force flash attention on or off; libllama decides when left out.'),
  step_timeout_secs: seconds()
    .min(2)
    .default(120)
    .describe('Silence of a device owner at work before it counts as hung; ten times that inside a load.'),
  prefix_cache_mb: nonNegativeInt()
    .max(16_777_216)
    .default(512)
    .describe(
      'MiB of host memory per model for the KV of ended sequences; 0 = off. Less where memory is short: ' +
        'at most a quarter of what the load leaves free.',
    ),
  speculation: z
    .enum(['auto', 'ngram', 'off'])
    .default('auto')
    .describe(
      "Draft tokens and verify them in the same step: from a request's own text, and with the model's own " +
        'layers for multi-token prediction where it has some and they fit; from the text alone; not at ' +
        'all. A draft_model takes the place of the layers, and drafts with "ngram" too.',
    ),
  libllama: z
    .enum(['auto', 'cpu', 'cuda', 'vulkan', 'metal'])
    .default('auto')
    .describe('Variant of libllama to load; auto = the best one installed.'),
});

const cpuSchema = z.strictObject({
  memory_mb: positiveInt()
    .nullable()
    .default(null)
    .describe('Memory for models on the CPU, in MiB; three quarters of the total when left out.'),
});

const deviceSchema = z.strictObject({
  index: nonNegativeInt().describe('Index of the device, as GET /discovery lists it.'),
  memory_mb: positiveInt().describe('MiB that models may take there; on the CPU at most [cpu] memory_mb.'),
});

const sourceInputSchema = z.strictObject({
  endpoint: httpUrl().optional().describe('Base URL; required except for huggingface.'),
  auth_env: nonEmpty().optional().describe('Environment variable that holds the token.'),
  cache_dir: nonEmpty().optional().describe('Directory for downloads from this source.'),
});

const sourcesSchema = z
  .record(z.string().regex(/^[a-z][a-z0-9_-]*$/), sourceInputSchema)
  .default({})
  .transform((sources, context) => {
    const complete: Record<string, ModelSource> = { huggingface };
    for (const [scheme, source] of Object.entries(sources)) {
      const filled = scheme === 'huggingface' ? { ...huggingface, ...source } : source;
      if (filled.endpoint === undefined) {
        context.addIssue({ code: 'custom', path: [scheme, 'endpoint'], message: 'is required' });
        continue;
      }
      complete[scheme] = { ...filled, endpoint: filled.endpoint };
    }
    return complete;
  })
  .describe('Where models are downloaded from, by scheme; huggingface is always there.');

const modelsSchema = z
  .strictObject({
    dirs: z.array(nonEmpty()).default([]).describe('Directories of GGUF files, found by file name.'),
    hf_cache: nonEmpty()
      .optional()
      .describe('Hugging Face cache; else HF_HUB_CACHE, HF_HOME/hub, ~/.cache/huggingface/hub.'),
    default_source: nonEmpty().default('huggingface').describe('Scheme of a model id that has none.'),
    sources: sourcesSchema,
  })
  .superRefine((models, context) => {
    if (Object.hasOwn(models.sources, models.default_source)) return;
    const known = Object.keys(models.sources).join(', ');
    const message = `names no source; [models.sources] has ${known}`;
    context.addIssue({ code: 'custom', path: ['default_source'], message });
  });

const admissionSchema = z.strictObject({
  max_in_flight: positiveInt()
    .nullable()
    .default(null)
    .describe('Requests of a model that run at once; its slots when left out.'),
  max_queue_depth: nonNegativeInt()
    .default(8)
    .describe('Requests of a model that wait; further ones get 503.'),
  max_wait_secs: seconds().default(30).describe('Seconds a request waits before it gets 503.'),
  max_per_principal: nonNegativeInt()
    .default(2)
    .describe('Requests of a model one principal may have running and waiting; 0 = no limit.'),
  max_tokens: positiveInt().default(8192).describe('Completion tokens of a request that names no limit.'),
});

const limitsSchema = z.strictObject({
  max_body_mb: z.number().positive().default(64).describe('Largest request body, in MiB.'),
  prefill_secs_max: positiveSeconds()
    .default(600)
    .describe('A prompt that would take longer to read, as measured, is not advertised in `limit.input`.'),
});

export const neuronConfigSchema = z.strictObject({
  listen: z
    .string()
    .regex(
      /^[^\s/[\]]+$/,
      'must be a host or address without a port, for example "0.0.0.0"; the port has its own key',
    )
    .refine((host) => !/^[^:]*:[^:]*$/.test(host), 'must not have a port; set `port`')
    .default('0.0.0.0')
    .describe('Host or address to listen on.'),
  port: z.int().min(0).max(65535).default(13131).describe('Port to listen on; 0 = any free one.'),
  key: nonEmpty().optional().describe('Bearer token required on every route but /health and /version.'),
  device_worker: z
    .enum(['auto', 'process', 'thread'])
    .default('auto')
    .describe('Where a device is owned: auto = a process per GPU and a thread for the CPU.'),
  state_dir: nonEmpty()
    .optional()
    .describe(
      'Directory for what the neuron learns, such as what loads really took; kept nowhere when left out.',
    ),
  default_models: z.array(modelSpecSchema).default([]).describe('Models loaded at start, in this order'),
  engine: engineSchema.prefault({}).describe('Defaults for loads, and the engine itself'),
  devices: z
    .array(deviceSchema)
    .default([])
    .superRefine(unique('index', 'index', ({ index }) => String(index)))
    .describe('Budgets of single devices'),
  cpu: cpuSchema.prefault({}).describe('The CPU as a device'),
  models: modelsSchema.prefault({}).describe('Where model files are found'),
  admission: admissionSchema.prefault({}).describe('What may run now, per model'),
  limits: limitsSchema.prefault({}).describe('What requests may be'),
  watch_config: z
    .boolean()
    .default(true)
    .describe('Read this file again when it changes; a faulty one changes nothing.'),
  log: logSection(),
});

/** One `[models.sources.<scheme>]` with its endpoint filled in. */
export interface ModelSource {
  readonly endpoint: string;
  readonly auth_env?: string | undefined;
  readonly cache_dir?: string | undefined;
}

/** neuron.toml with every default filled in. */
export type NeuronConfig = z.output<typeof neuronConfigSchema>;
