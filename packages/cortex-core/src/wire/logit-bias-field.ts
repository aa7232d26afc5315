/**
 * `logit_bias`: OpenAI's `{"15043": -100}`, or llama-server's `[[15043, -100], [2, false]]`, where false
 * rules a token out. Checked in one pass that ends at a fault.
 */
import { z } from 'zod';

export interface LogitBias {
  readonly token: number;
  readonly bias: number;
}

const entriesMax = 4096;
/** So low that no logit makes up for it. */
const ruledOut = -1e6;

export const logitBiasSchema = z
  .unknown()
  .optional()
  .transform((value, context): readonly LogitBias[] | undefined => {
    if (value === undefined || value === null) return undefined;
    const read = readLogitBias(value);
    if (typeof read !== 'string') return read;
    context.addIssue({ code: 'custom', message: read });
    return undefined;
  });

/** The entries, or what is wrong with them. */
function readLogitBias(value: unknown): readonly LogitBias[] | string {
  if (typeof value !== 'object' || value === null) return 'must be an object of token ids and numbers';
  const entries: readonly unknown[] = Array.isArray(value) ? value : Object.entries(value);
  if (entries.length > entriesMax) return `has ${entries.length} entries; at most ${entriesMax}`;
  const biases: LogitBias[] = [];
  for (const entry of entries) {
    const [token, bias] = Array.isArray(entry) && entry.length === 2 ? entry : [null, null];
    const id = typeof token === 'string' && /^\d{1,10}$/.test(token) ? Number(token) : token;
    if (!Number.isSafeInteger(id) || id < 0) {
      return `${show(token)} is no token id; POST /tokenize tells the ids of a text`;
    }
    const amount = bias === false ? ruledOut : bias;
    if (typeof amount !== 'number' || !Number.isFinite(amount)) {
      return `the bias of token ${id} must be a number, not ${show(bias)}`;
    }
    biases.push({ token: id, bias: amount });
  }
  return biases;
}

function show(value: unknown): string {
  return String(JSON.stringify(value)).slice(0, 40);
}
