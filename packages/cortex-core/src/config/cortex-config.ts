/** cortex.toml: the gateway. Every section is optional; an empty file is a gateway with no neurons. */
import { z } from 'zod';
import {
  httpUrl,
  listenAddress,
  logSection,
  nonEmpty,
  nonNegativeInt,
  positiveInt,
  positiveSeconds,
  seconds,
  unique,
} from './fields.ts';

const gatewaySchema = z.strictObject({
  listen: listenAddress().default('0.0.0.0:31313').describe('Address of the API, host:port.'),
  metrics_listen: listenAddress()
    .default('0.0.0.0:31314')
    .describe('Address of the Prometheus metrics, host:port.'),
  poll_interval_secs: positiveSeconds().default(10).describe('Seconds between two polls of a neuron.'),
  poll_timeout_secs: positiveSeconds().default(5).describe('Seconds one poll may take.'),
  unhealthy_after_misses: positiveInt()
    .default(3)
    .describe('Missed polls in a row after which a neuron gets no requests.'),
  max_body_mb: z.number().positive().default(64).describe('Largest request body, in MiB.'),
  upstream_idle_timeout_secs: positiveSeconds()
    .default(300)
    .describe('Seconds without a byte from a neuron after which a request fails.'),
  load_timeout_secs: positiveSeconds().default(1800).describe('Seconds a model load may take.'),
  cold_load_wait_secs: seconds()
    .default(300)
    .describe(
      'Seconds a non-streaming request waits for a model to load before it gets 503 and Retry-After.',
    ),
  max_waiting_requests: nonNegativeInt()
    .default(1024)
    .describe('Requests that may wait for loads at once; further ones get 503.'),
  keepalive_secs: positiveSeconds()
    .default(10)
    .describe('Seconds between keep-alives on a stream that waits for its model.'),
  neuron_key: nonEmpty().optional().describe('Bearer token sent to the neurons; their `key`.'),
  admin_keys: z.array(nonEmpty()).default([]).describe('Bearer tokens accepted on /admin.'),
});

const evictionSchema = z.strictObject({
  strategy: z
    .enum(['lru', 'priority', 'cost'])
    .default('lru')
    .describe(
      'Which model makes room: "lru" the longest unused, "priority" the lowest residency_priority first, ' +
        '"cost" the one whose reload is least to be expected and quickest.',
    ),
  drain_timeout_secs: positiveSeconds()
    .default(120)
    .describe('Seconds a model that makes room may go on answering; then other models are tried.'),
  cut_after_drain: z
    .boolean()
    .default(false)
    .describe('Cut the answers that are left after drain_timeout_secs, and unload the model.'),
  idle_ttl_secs: seconds()
    .default(0)
    .describe(
      'Unload a model unused for that long; 0 = never. Not for pinned models; `ttl_secs` of a model goes ' +
        'before it.',
    ),
});

const queueSchema = z.strictObject({
  max_wait_secs: seconds()
    .default(60)
    .describe(
      'Seconds a request may wait for a model while another one is kept busy; then the models swap. ' +
        'docs/scheduling.md states the bound.',
    ),
  min_residency_factor: z
    .number()
    .nonnegative()
    .max(100)
    .default(1)
    .describe('Least time that a model stays after a load, in times the load took.'),
  min_residency_max_secs: seconds().default(30).describe('Cap of that time, in seconds.'),
});

const neuronEntrySchema = z.strictObject({
  name: nonEmpty().max(128).describe('Name of the machine in listings, metrics and pinned_on.'),
  endpoint: httpUrl().describe('Base URL of its neuron.'),
});

const windowSchema = z
  .discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('balance') }),
    z.strictObject({
      kind: z.literal('rolling'),
      seconds: positiveInt().describe('Length of the window in seconds.'),
    }),
  ])
  .default({ kind: 'balance' })
  .describe('balance: hard_cap is spent once. rolling: hard_cap is per window of `seconds`.');

function priorityField() {
  return z.number().int().min(-100).max(100);
}

const entitlementKeySchema = z
  .strictObject({
    key: nonEmpty().describe('The API key a client sends.'),
    account_id: nonEmpty().describe('Account that its use counts for.'),
    key_id: nonEmpty().optional().describe('Name of the key in logs and reports; account_id when left out.'),
    hard_cap: nonNegativeInt().optional().describe('Tokens the key may use; no cap when left out.'),
    window: windowSchema,
    priority: priorityField()
      .default(0)
      .describe('Priority of its requests among those that wait; higher goes first.'),
    priority_max: priorityField()
      .optional()
      .describe('The highest it may ask for with an x-cortex-priority header; `priority` when left out.'),
  })
  .refine((entry) => entry.priority_max === undefined || entry.priority_max >= entry.priority, {
    path: ['priority_max'],
    message: 'must not be lower than `priority`',
  })
  .transform((entry) => ({
    ...entry,
    key_id: entry.key_id ?? entry.account_id,
    priority_max: entry.priority_max ?? entry.priority,
  }));

const entitlementsSchema = z.strictObject({
  require_auth: z.boolean().default(false).describe('Refuse requests without a known key with 401.'),
  keys: z
    .array(entitlementKeySchema)
    .superRefine(unique('key', 'key', (entry) => entry.key, false))
    .default([])
    .describe('The API keys'),
});

export const cortexConfigSchema = z.strictObject({
  models_config: nonEmpty()
    .default('models.toml')
    .describe('The model catalogue; relative to this file. A missing file is an empty catalogue.'),
  gateway: gatewaySchema.prefault({}).describe('The gateway itself'),
  eviction: evictionSchema.prefault({}).describe('How room is made for a model'),
  queue: queueSchema.prefault({}).describe('Whose turn it is when not all models fit'),
  neurons: z
    .array(neuronEntrySchema)
    .superRefine(unique('name', 'name', (neuron) => neuron.name))
    .superRefine(unique('endpoint', 'endpoint', (neuron) => neuron.endpoint, false))
    .default([])
    .describe('The machines of the fleet'),
  entitlements: entitlementsSchema.prefault({}).describe('Who may use the gateway, and how much'),
  log: logSection(),
});

/** cortex.toml with every default filled in. */
export type CortexConfig = z.output<typeof cortexConfigSchema>;
