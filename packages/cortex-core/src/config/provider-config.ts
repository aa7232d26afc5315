/** `[[providers]]` of cortex.toml: services of others that answer where no neuron can. */
import { z } from 'zod';
import { costSchema, limitSchema } from '../wire/neuron.ts';
import {
  httpUrl,
  nonEmpty,
  nonNegativeInt,
  positiveInt,
  positiveSeconds,
  seconds,
  unique,
} from './fields.ts';
import { isPrivateHost } from './private-host.ts';

const modelFields = z.strictObject({
  id: nonEmpty().max(512).describe('The name clients ask for; may be that of a model in the catalogue.'),
  upstream: nonEmpty().max(512).optional().describe("The provider's own name of it; `id` when left out."),
  limit: limitSchema.strict().optional().describe('Token limits: context, input, output.'),
  cost: costSchema
    .strict()
    .optional()
    .describe('Price in USD per million tokens; absent = unpriced, 0 = free.'),
  capabilities: z
    .array(nonEmpty())
    .default([])
    .describe('What it can do, e.g. "text", "vision", "tools", "reasoning"; empty = not known.'),
});

/** A text is a model that has the same name on both sides. */
const modelSchema = z
  .union([nonEmpty().max(512), modelFields])
  .transform((model) => (typeof model === 'string' ? modelFields.parse({ id: model }) : model));

export const providerSchema = z
  .strictObject({
    name: nonEmpty()
      .max(64)
      .regex(/^[\w.-]+$/, 'must be of letters, digits, ".", "_" and "-"')
      .describe('Name in listings, metrics and `x-cortex-route`.'),
    kind: z
      .enum(['openai', 'anthropic'])
      .describe('What it speaks: {url}/chat/completions, or {url}/v1/messages.'),
    url: httpUrl().describe('Base address. For "openai" with its version, for "anthropic" without.'),
    key_env: z
      .string()
      .regex(/^[A-Za-z_]\w*$/, 'must be the name of an environment variable, not a key')
      .refine((name) => !name.startsWith('CORTEX_'), 'must not begin with CORTEX_, as keys of this file do')
      .optional()
      .describe('Environment variable with its API key, read with each request; none is sent when left out.'),
    models: z
      .array(modelSchema)
      .min(1, 'list at least one model')
      .superRefine(unique('model', null, (model) => model.id))
      .describe('Models asked of it: names, or tables with id and upstream.'),
    allow_http: z
      .boolean()
      .default(false)
      .describe('Send the key and prompts without encryption to a public address.'),
    max_concurrent: positiveInt().default(64).describe('Requests that run there at once, at most.'),
    connect_timeout_secs: positiveSeconds().default(10).describe('Seconds until a connection stands.'),
    idle_timeout_secs: positiveSeconds()
      .default(300)
      .describe('Seconds without a byte from it after which a request fails.'),
    after_wait_secs: seconds()
      .optional()
      .describe('Seconds that a request waits for a neuron before it goes here; it waits on when left out.'),
    rest_after_failures: nonNegativeInt()
      .default(5)
      .describe('Failed requests in a row after which it rests for 5 s and longer; 0 = never.'),
    drop_fields: z
      .array(nonEmpty())
      .default([])
      .describe('Further fields of a chat request that it refuses, e.g. "top_k"; they are left out.'),
    max_tokens_field: z
      .enum(['max_tokens', 'max_completion_tokens'])
      .default('max_tokens')
      .describe('How a translated request names its output limit.'),
  })
  .superRefine((provider, context) => {
    const fault = faultOf(provider.url, provider.kind, provider.allow_http);
    if (fault !== null) context.addIssue({ code: 'custom', path: ['url'], message: fault });
  });

export type ProviderConfig = z.output<typeof providerSchema>;

function faultOf(address: string, kind: string, allowHttp: boolean): string | null {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url === null) return null;
  if (url.username !== '' || url.password !== '') {
    return 'must not hold a user or a password; name the variable with the key in key_env';
  }
  if (url.search !== '' || url.hash !== '') return 'must not hold a query or a fragment';
  if (kind === 'anthropic' && url.pathname.endsWith('/v1')) return 'must end before /v1, which is added';
  if (url.protocol === 'https:' || allowHttp || isPrivateHost(url.hostname)) return null;
  return 'must be https; for a public address without encryption set allow_http = true';
}
