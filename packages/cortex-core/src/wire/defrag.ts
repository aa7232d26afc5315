/** The answer of the gateway's `POST /admin/defrag`. Sizes in MiB; devices by their index on the node. */
import { z } from 'zod';

const nodeSchema = z.object({
  node: z.string(),
  /** The model that fits after the moves. */
  makes_room_for: z.string().nullable(),
  moves: z.array(z.object({ model: z.string(), from: z.number(), to: z.number(), vram_mb: z.number() })),
  moved_mb: z.number(),
  recycle: z.array(z.object({ device: z.number(), models: z.array(z.string()), why: z.string() })),
  why: z.string(),
  /** Absent in a dry run. */
  done: z
    .object({
      moves: z.number(),
      recycled: z.number(),
      /** Models that a fresh owner did not get back, and that are being loaded again. */
      reloading: z.array(z.string()),
      /** Why it ended before its last step. */
      error: z.string().nullable(),
    })
    .optional(),
});

export const defragAnswerSchema = z.object({ dry_run: z.boolean(), nodes: z.array(nodeSchema) });
export type DefragAnswer = z.output<typeof defragAnswerSchema>;
export type DefragNode = z.output<typeof nodeSchema>;
