/**
 * How a broken answer goes on at another neuron.
 *
 * A gateway that sends `x-cortex-tokens: tell` with a streamed request gets the answer in frames
 * (token-frames.ts), which say the token ids that the events are made of. With `x-cortex-tokens: continue`
 * the body has `cortex_continue` as well: the answer so far. The neuron then answers with
 * `x-cortex-continued: <count>` and only what comes after those tokens.
 */
import { z } from 'zod';
import { tokenIdsSchema } from './prompt-field.ts';

export const tokensHeader = 'x-cortex-tokens';
export const continuedHeader = 'x-cortex-continued';
/** Field of the body. */
export const continuationField = 'cortex_continue';

export const continuationSchema = z.strictObject({
  /** The identity that the answer began with. */
  id: z.string().min(1).max(256),
  created: z.number().int().nonnegative(),
  model: z.string().min(1).max(512),
  /** Every token of the answer so far, in order. */
  tokens: tokenIdsSchema,
});
export type Continuation = z.output<typeof continuationSchema>;
