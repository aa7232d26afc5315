/** models.toml: the catalogue of models that the gateway may load, and other names for them. */
import { z } from 'zod';
import { costSchema, limitSchema } from '../wire/neuron.ts';
import { chatRequestSchema } from '../wire/openai.ts';
import { nonEmpty, nonNegativeInt, positiveInt, seconds, unique } from './fields.ts';
import { findNearest } from './nearest-key.ts';

const defaultPriority = 100;
const pinnedPriority = 1000;

const modelEntrySchema = z
  .strictObject({
    id: nonEmpty().max(512).describe('The name clients ask for and neurons load.'),
    harness: nonEmpty().default('llamacpp').describe('Engine that runs it.'),
    quant: nonEmpty()
      .max(64)
      .optional()
      .describe('Quantisation to pick where a repository has several, e.g. "Q4_K_M".'),
    vram_mb: positiveInt()
      .optional()
      .describe('Memory it takes when loaded, in MiB; estimated when left out.'),
    min_devices: positiveInt().max(64).default(1).describe('Devices it is spread over.'),
    min_device_vram_mb: positiveInt().optional().describe('Least memory of each of those devices, in MiB.'),
    pinned_on: z
      .array(nonEmpty())
      .default([])
      .describe('Names of the only neurons that may load it; empty = any.'),
    residency_priority: nonNegativeInt()
      .optional()
      .describe(
        'A model is only evicted for one of the same or a higher priority. ' +
          `${defaultPriority} when left out, ${pinnedPriority} when pinned_on is set.`,
      ),
    source: nonEmpty()
      .regex(/^[a-z][a-z0-9_-]*$/, 'must be a scheme such as "huggingface", without a colon')
      .optional()
      .describe("Scheme of one of the neuron's [models.sources]; its default_source when left out."),
    limit: limitSchema.strict().optional().describe('Token limits to advertise: context, input, output.'),
    cost: costSchema
      .strict()
      .optional()
      .describe('Price in USD per million tokens; absent = unpriced, 0 = free.'),
    ttl_secs: seconds()
      .optional()
      .describe(
        'Unload it when unused for that long; 0 = never. Left out: idle_ttl_secs of cortex.toml, and never ' +
          'when pinned.',
      ),
    capabilities: z.array(nonEmpty()).default([]).describe('What it can do, e.g. "text", "vision".'),
  })
  .transform((entry) => ({
    ...entry,
    residency_priority:
      entry.residency_priority ?? (entry.pinned_on.length > 0 ? pinnedPriority : defaultPriority),
  }));

/** What an alias may say in a request's place: how to sample, and how to fill in the chat template. */
const aliasOptionNames = [
  ...[
    'temperature',
    'top_p',
    'top_k',
    'min_p',
    'typical_p',
    'top_n_sigma',
    'xtc_probability',
    'xtc_threshold',
  ],
  ...['repeat_penalty', 'repetition_penalty', 'repeat_last_n', 'frequency_penalty', 'presence_penalty'],
  ...['dry_multiplier', 'dry_base', 'dry_allowed_length', 'dry_penalty_last_n', 'dry_sequence_breakers'],
  ...['seed', 'stop', 'logit_bias', 'max_tokens', 'max_completion_tokens', 'grammar', 'ignore_eos'],
  ...['chat_template_kwargs', 'enable_thinking', 'reasoning_effort', 'verbosity', 'parallel_tool_calls'],
] as const;

const aliasOptionsSchema = z
  .record(nonEmpty(), z.unknown())
  .superRefine((options, context) => {
    const fields: Readonly<Record<string, z.ZodType>> = chatRequestSchema.shape;
    for (const [name, value] of Object.entries(options)) {
      const known = (aliasOptionNames as readonly string[]).includes(name);
      const result = known ? fields[name]?.safeParse(value) : undefined;
      if (result?.success === true) continue;
      const path = [name, ...(result?.error?.issues[0]?.path ?? [])];
      const told = result?.error?.issues[0]?.message ?? '';
      const nearest = findNearest(name, aliasOptionNames);
      const meant = nearest === null ? '' : `; did you mean "${nearest}"?`;
      const unknown = `is no sampling or template option${meant}`;
      context.addIssue({ code: 'custom', path, message: known ? `is not valid: ${told}` : unknown });
    }
  })
  .default({})
  .describe('Fields of a request that hold where the request does not say them.');

const aliasSchema = z.union([
  nonEmpty(),
  z.strictObject({
    model: nonEmpty().describe('Id of the model. Aliases of one model share what is loaded.'),
    options: aliasOptionsSchema,
  }),
]);

export const modelsConfigSchema = z.strictObject({
  models: z
    .array(modelEntrySchema)
    .superRefine(unique('id', 'id', (model) => model.id))
    .default([])
    .describe('The models'),
  aliases: z
    .record(nonEmpty().max(512), aliasSchema)
    .superRefine((aliases, context) => {
      for (const name of Object.keys(aliases)) {
        if (!name.slice(0, -1).includes('*')) continue;
        context.addIssue({ code: 'custom', path: [name], message: 'may hold a * at its end only' });
      }
    })
    .default({})
    .describe(
      'Other names: "name clients ask for" = "model id", or a table with `model` and `options`. One level; ' +
        'an alias of an alias is not followed. A name with a * at its end, as in "claude-*", stands for ' +
        'all that begin so and are no model or alias themselves.',
    ),
});

/** models.toml with every default filled in. */
export type ModelsConfig = z.output<typeof modelsConfigSchema>;
