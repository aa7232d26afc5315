/**
 * The lifecycle API of a neuron, as it stands on the wire. Sizes in MiB, times in seconds unless named so.
 */
import { z } from 'zod';

/** Grows when a neuron and a gateway of different versions would misunderstand each other. */
export const wireVersion = 1;

const index = z.number().int().nonnegative();

/** On every answer of a neuron: `instance` of its discovery. */
export const instanceHeader = 'x-cortex-neuron';

export const discoverySchema = z.object({
  hostname: z.string(),
  os: z.string(),
  kernel: z.string(),
  cuda_version: z.string().nullable(),
  driver_version: z.string().nullable(),
  devices: z.array(
    z.object({
      index,
      name: z.string(),
      /** `cpu`, `cuda`, `vulkan`, `metal`, ... */
      kind: z.string().default('cuda'),
      vram_total_mb: z.number(),
      compute_capability: z.string().nullable().default(null),
      /** false: nothing is placed there unless a load names it; `cuda_unavailable_reason` says why. */
      usable: z.boolean().optional(),
    }),
  ),
  harnesses: z.array(z.string()),
  cuda_unavailable_reason: z.string().optional(),
  max_prompt_tokens: z.number().int().default(0),
  /** Version of the neuron that answers. */
  package_version: z.string().default('unknown'),
  /** `wireVersion` of the neuron that answers; null = it is of before there was one. */
  wire_version: z.number().int().nullable().default(null),
  /** Differs in each life of each neuron; null = the neuron is too old to say. */
  instance: z.string().nullable().default(null),
});
export type Discovery = z.output<typeof discoverySchema>;

/** Where a model stood when its neuron was asked: two that differ say that it was used in between. */
const useMarkSchema = z.object({
  /** Another one for each load of the model. */
  load_id: z.string().max(64),
  /** That named it since that load, whoever sent them, also those that have no slot yet. */
  requests: z.number().int().nonnegative(),
});
export type UseMark = z.output<typeof useMarkSchema>;

export const modelLoadSchema = z.object({
  id: z.string(),
  in_flight: z.number(),
  queue_depth: z.number(),
  max_in_flight: z.number().default(0),
  max_queue_depth: z.number().default(0),
  rejected_queue_full: z.number().default(0),
  rejected_timeout: z.number().default(0),
  rejected_per_principal: z.number().default(0),
  anon_in_flight: z.number().default(0),
  anon_max_in_flight: z.number().default(0),
  rejected_anon_yield: z.number().default(0),
  rejected_kv_timeout: z.number().default(0),
  rejected_kv_unservable: z.number().default(0),
  kv_budget_mb: z.number().default(0),
  kv_available_mb: z.number().default(0),
  tok_s_prefill: z.number().default(0),
  tok_s_decode: z.number().default(0),
  /** Absent = the neuron is too old to say. Ages, because the clocks of two machines differ. */
  use: useMarkSchema
    .extend({
      loaded_secs: z.number().nonnegative(),
      /** 0 = it is in use; null = not used since its load. */
      idle_secs: z.number().nonnegative().nullable(),
    })
    .optional(),
});
export type ModelLoad = z.output<typeof modelLoadSchema>;

export const activationSchema = z.object({
  state: z.enum(['pre_warming', 'ready']),
  pending: z.array(z.string()),
  in_progress: z.string().nullable(),
  completed: z.array(z.string()),
  failed: z.array(z.object({ model_id: z.string(), error: z.string() })),
});
export type Activation = z.output<typeof activationSchema>;

/** A load under way: `percent` 0..100; `eta_secs` null when there is no honest estimate. */
export const loadProgressSchema = z.object({
  model_id: z.string(),
  phase: z.enum(['queued', 'fetching', 'loading']),
  percent: z.number(),
  bytes_done: z.number().default(0),
  bytes_total: z.number().default(0),
  eta_secs: z.number().nullable().default(null),
});
export type LoadProgress = z.output<typeof loadProgressSchema>;

export const healthSchema = z.object({
  uptime_secs: z.number(),
  /** As in discovery. */
  instance: z.string().nullable().default(null),
  devices: z.array(
    z.object({
      index,
      vram_used_mb: z.number().nullable(),
      vram_free_mb: z.number().nullable(),
      utilization_pct: z.number().nullable(),
      temp_c: z.number().nullable(),
      /** Models unloaded there since its owner started. */
      load_cycles: z.number().int().nonnegative().default(0),
    }),
  ),
  activation: activationSchema,
  models: z.array(modelLoadSchema),
  loading: z.array(loadProgressSchema).default([]),
});
export type NeuronHealth = z.output<typeof healthSchema>;

export const limitSchema = z.object({
  context: z.number().int().positive(),
  input: z.number().int().positive().optional(),
  output: z.number().int().positive(),
});
export type ModelLimit = z.output<typeof limitSchema>;

export const costSchema = z.object({
  input: z.number().nonnegative().default(0),
  output: z.number().nonnegative().default(0),
  cache_read: z.number().nonnegative().optional(),
  cache_write: z.number().nonnegative().optional(),
});
export type ModelCost = z.output<typeof costSchema>;

/** `loaded` serves; `available` is on this machine's disk; strings not listed here read as `unknown`. */
export const modelStatusSchema = z
  .enum(['loaded', 'loading', 'recovering', 'poisoned', 'unloading', 'available', 'failed', 'unknown'])
  .catch('unknown');
export type ModelStatus = z.output<typeof modelStatusSchema>;

export const neuronModelSchema = z.object({
  id: z.string(),
  harness: z.string().default('llamacpp'),
  status: modelStatusSchema,
  devices: z.array(index).default([]),
  vram_used_mb: z.number().nullable().default(null),
  /** What a load would take; null = not estimated. */
  vram_estimate_mb: z.number().nullable().default(null),
  capabilities: z.array(z.string()).default([]),
  limit: limitSchema.optional(),
  /** Compute threads of a step, where it is loaded. */
  threads: z.number().int().positive().optional(),
  cost: costSchema.optional(),
  tool_call: z.boolean().default(false),
  reasoning: z.boolean().default(false),
  servable: z
    .object({ ok: z.boolean(), reason: z.string().optional(), detail: z.string().optional() })
    .optional(),
  /** SHA-256 of the weights where it is known, so that two nodes can be compared. */
  digest: z.string().nullable().default(null),
  /**
   * Of the file's header and samples of every tensor, adapters included: where two nodes say the same, one
   * can go on with the other's answer. Null = not known.
   */
  weights_digest: z.string().nullish(),
  /** Of the model's chat templates. */
  template_digest: z.string().nullish(),
});
export type NeuronModel = z.output<typeof neuronModelSchema>;
export const neuronModelsSchema = z.array(neuronModelSchema);

const loraSchema = z.strictObject({
  /** Path of a GGUF adapter; relative ones start at the configuration's directory. */
  file: z.string().min(1).max(4096),
  scale: z.number().min(-100).max(100).default(1),
});

/** Body of POST /models/load and an entry of `default_models`. */
export const modelSpecSchema = z.strictObject({
  model_id: z.string().min(1).max(512),
  harness: z.string().default('llamacpp'),
  /** Quantisation to pick where a repository has several, e.g. `Q4_K_M`. */
  quant: z.string().max(64).nullish(),
  tensor_parallel: z.number().int().min(1).max(64).nullish(),
  devices: z.array(index).max(64).nullish(),
  context: z.union([z.number().int().min(16), z.literal('auto')]).nullish(),
  slots: z.number().int().min(1).max(256).nullish(),
  cache_type_k: z.string().nullish(),
  cache_type_v: z.string().nullish(),
  split_mode: z.enum(['none', 'layer', 'row', 'tensor']).nullish(),
  gpu_layers: z.number().int().min(0).nullish(),
  /** MiB of host memory for the KV of ended sequences; a load that names it gets it or is refused. */
  prefix_cache_mb: z.number().int().min(0).max(16_777_216).nullish(),
  speculation: z.enum(['auto', 'ngram', 'off']).nullish(),
  /** Id of a smaller model of the same vocabulary that drafts; never a file. */
  draft_model: z.string().min(1).max(512).nullish(),
  /** Only the configuration may name files: refused in a request. */
  lora: z.array(loraSchema).max(16).nullish(),
});
export type ModelSpec = z.output<typeof modelSpecSchema>;

export const modelUnloadSchema = z.strictObject({
  model_id: z.string().min(1).max(512),
  /** Unless it was used or loaded again since it stood so: then `model_in_use`, and it stays. */
  unused_since: useMarkSchema.optional(),
});

/** Body of POST /models/cancel: ends the load of that model; one that is loaded stays. */
export const modelCancelSchema = z.strictObject({ model_id: z.string().min(1).max(512) });

/** Body of POST /models/move: the devices of this machine where the model shall be. */
export const modelMoveSchema = z.strictObject({
  model_id: z.string().min(1).max(512),
  devices: z.array(index).min(1).max(64),
});

/** Body of POST /devices/recycle. */
export const deviceRecycleSchema = z.strictObject({ device: index });

/** Its answer: which models the fresh owner has, with what they had, by a plain load, or not at all. */
export interface DeviceRecycled {
  readonly status: 'recycled';
  readonly transferred: readonly string[];
  readonly reloaded: readonly string[];
  readonly failed: readonly string[];
}

export interface NeuronVersion {
  readonly package_version: string;
  readonly git_sha: string;
  readonly node_version: string;
  readonly platform: string;
  readonly libllama_version: string | null;
  readonly libllama_package: string | null;
  readonly features: readonly string[];
}
