/** fleet.toml: the machines and models of a simulation (`cortex simulate`). */
import { z } from 'zod';
import { nonEmpty, nonNegativeInt, positiveInt, seconds, unique } from './fields.ts';

const rate = (): z.ZodNumber => z.number().positive();

const nodeSchema = z.strictObject({
  name: nonEmpty().max(128).describe('Name of the machine; with a number when there are several.'),
  count: positiveInt().max(10_000).default(1).describe('How many of them there are.'),
  device_mb: z
    .array(positiveInt())
    .min(1)
    .max(64)
    .default([24_000])
    .describe('Memory of each device, in MiB.'),
  load_mb_per_sec: rate().default(1000).describe('MiB of a model that are loaded in a second.'),
  prefill_tokens_per_sec: rate().default(2000).describe('Prompt tokens read in a second.'),
  decode_tokens_per_sec: rate().default(40).describe('Tokens of one answer in a second.'),
  slots: positiveInt().default(4).describe('Requests that a model answers at once.'),
});

const modelSchema = z.strictObject({
  id: nonEmpty().max(512).describe('The name that the trace asks for.'),
  vram_mb: positiveInt().describe('Memory it takes when loaded, in MiB.'),
  min_devices: positiveInt().max(64).default(1).describe('Devices it is spread over.'),
  pinned_on: z.array(nonEmpty()).default([]).describe('Names of the only machines that may load it.'),
  residency_priority: nonNegativeInt().optional().describe('As in models.toml.'),
});

export const fleetConfigSchema = z.strictObject({
  unload_secs: seconds().default(0.5).describe('Seconds that an unload takes.'),
  max_wait_secs: seconds().default(60).describe('As in cortex.toml.'),
  min_residency_factor: z.number().nonnegative().max(100).default(1).describe('As in cortex.toml.'),
  min_residency_max_secs: seconds().default(30).describe('As in cortex.toml.'),
  nodes: z
    .array(nodeSchema)
    .superRefine(unique('name', 'name', (node) => node.name))
    .default([])
    .describe('The machines'),
  models: z
    .array(modelSchema)
    .superRefine(unique('id', 'id', (model) => model.id))
    .default([])
    .describe('The models'),
});
