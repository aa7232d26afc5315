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
import { providerSchema } from './provider-config.ts';

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
  rest_after_failures: nonNegativeInt()
    .default(5)
    .describe('Failed requests in a row after which a neuron rests, although it answers polls; 0 = never.'),
  max_body_mb: z.number().positive().default(64).describe('Largest request body, in MiB.'),
  upstream_idle_timeout_secs: positiveSeconds()
    .default(300)
    .describe('Seconds without a byte from a neuron after which a request fails.'),
  load_timeout_secs: positiveSeconds()
    .default(300)
    .describe(
      'Seconds without progress after which a load is stopped; a large model has more, by the measured rate.',
    ),
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
    .describe('Seconds of silence after which a stream is kept alive, again and again.'),
  watch_config: z
    .boolean()
    .default(true)
    .describe('Read this file and the catalogue again when they change; a faulty one changes nothing.'),
  prefix_hygiene: z
    .boolean()
    .default(true)
    .describe('Take out of prompts what clients change in their head with every turn.'),
  stream_check_every: nonNegativeInt()
    .default(100)
    .describe('One in so many streams is held against the grammar of its dialect; 0 = none.'),
  neuron_key: nonEmpty().optional().describe('Bearer token sent to the neurons; their `key`.'),
  admin_keys: z.array(nonEmpty()).default([]).describe('Bearer tokens accepted on /admin.'),
});

const failoverSchema = z.strictObject({
  attempts: positiveInt()
    .default(3)
    .describe('Nodes that one request is sent to, at most; after each break of its stream anew.'),
  give_up_secs: seconds()
    .default(30)
    .describe('Seconds from a failure on in which another node is sought or waited for.'),
  budget_ratio: z
    .number()
    .min(0)
    .max(10)
    .default(0.2)
    .describe('Further attempts per request over the whole gateway, so that a sick fleet is not hammered.'),
  budget_burst: nonNegativeInt()
    .default(256)
    .describe('Further attempts that may come at once: streams that one node may take with it.'),
  continue_streams: z
    .boolean()
    .default(true)
    .describe('Let a stream that broke go on at a node with the same weights.'),
  attach_mb: z
    .number()
    .min(0)
    .default(4)
    .describe('MiB kept of an answer for a client that sends the same request again; 0 = never joined.'),
  attach_total_mb: z.number().min(0).default(64).describe('The same for all answers together.'),
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
  defrag_after_cycles: nonNegativeInt()
    .default(50)
    .describe(
      'Models a node unloads before it is defragmented while nobody waits: moves between its devices, and ' +
        'fresh owners; 0 = never by itself.',
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

const responsesSchema = z.strictObject({
  max_entries: nonNegativeInt()
    .default(4096)
    .describe('Answers of /v1/responses kept for previous_response_id; 0 keeps none.'),
  max_mb: z.number().positive().default(256).describe('MiB that they may take together.'),
  keep_secs: positiveSeconds().default(86400).describe('Seconds without use after which one is forgotten.'),
  max_background: nonNegativeInt()
    .default(64)
    .describe('Answers with background: true that are made at a time; 0 refuses them.'),
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

export const cortexConfigSchema = z
  .strictObject({
    models_config: nonEmpty()
      .default('models.toml')
      .describe('The model catalogue; relative to this file. A missing file is an empty catalogue.'),
    state_dir: nonEmpty()
      .optional()
      .describe(
        'Directory for what the gateway learns, such as how fast each neuron is; kept nowhere when left out.',
      ),
    gateway: gatewaySchema.prefault({}).describe('The gateway itself'),
    failover: failoverSchema.prefault({}).describe('What happens to a request whose node fails'),
    eviction: evictionSchema.prefault({}).describe('How room is made for a model'),
    queue: queueSchema.prefault({}).describe('Whose turn it is when not all models fit'),
    responses: responsesSchema.prefault({}).describe('The store of the Responses API, in memory'),
    neurons: z
      .array(neuronEntrySchema)
      .superRefine(unique('name', 'name', (neuron) => neuron.name))
      .superRefine(unique('endpoint', 'endpoint', (neuron) => neuron.endpoint, false))
      .default([])
      .describe('The machines of the fleet'),
    providers: z
      .array(providerSchema)
      .superRefine(unique('name', 'name', (provider) => provider.name))
      .default([])
      .describe('Services of others, asked where no neuron can serve a model'),
    entitlements: entitlementsSchema.prefault({}).describe('Who may use the gateway, and how much'),
    log: logSection(),
  })
  .superRefine(({ neurons, providers }, context) => {
    for (const [at, { name }] of providers.entries()) {
      if (!neurons.some((neuron) => neuron.name === name)) continue;
      const message = `name "${name}" is already used by a neuron; metrics tell them apart by it`;
      context.addIssue({ code: 'custom', path: ['providers', at, 'name'], message });
    }
  });

/** cortex.toml with every default filled in. */
export type CortexConfig = z.output<typeof cortexConfigSchema>;
