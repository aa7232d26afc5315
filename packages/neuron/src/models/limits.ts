/** What a loaded model can be asked, as GET /models advertises it. Pure. */
import type { ModelLimit } from 'cortex-core/wire/neuron';

export interface LimitSources {
  /** Tokens of one sequence: the training context, or less where memory was short. */
  readonly context: number;
  readonly outputTokensMax: number;
  /** Measured on prompts of some length, tokens/s; 0 = not yet. */
  readonly readRate: number;
  /** A prompt that would take longer to read is not advertised. */
  readonly prefillSecsMax: number;
}

const inputStep = 256;

/** `input` leaves room for one token of answer; where reading is slow it is a multiple of 256. */
export function deriveLimit(sources: LimitSources): ModelLimit {
  const { context, outputTokensMax, readRate, prefillSecsMax } = sources;
  const room = Math.max(1, context - 1);
  const readable = Math.floor((readRate * prefillSecsMax) / inputStep) * inputStep;
  const input = readRate > 0 ? Math.min(room, Math.max(inputStep, readable)) : room;
  return { context, input, output: Math.min(context, outputTokensMax) };
}
