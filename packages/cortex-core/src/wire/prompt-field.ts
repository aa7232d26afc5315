/** The `prompt` of a raw completion and lists of token ids: checked in one pass that ends at a fault. */
import { z } from 'zod';

export type Prompt = string | readonly string[] | readonly number[] | readonly (readonly number[])[];

export const promptSchema = z.custom<Prompt>().superRefine((value, context) => {
  const message = describePromptFault(value);
  if (message !== null) context.addIssue({ code: 'custom', message });
});

const tokensMax = 1_000_000;

/** Token ids of one text. Whether the vocabulary has them is known to the model alone. */
export const tokenIdsSchema = z.custom<readonly number[]>().superRefine((value, context) => {
  const isList = Array.isArray(value) && value.length <= tokensMax;
  const message = isList ? describeTokenFault(value) : `must be a list of at most ${tokensMax} token ids`;
  if (message !== null) context.addIssue({ code: 'custom', message });
});

function describePromptFault(value: unknown): string | null {
  if (typeof value === 'string') return null;
  const wanted = 'must be a text, a list of token ids, or a list of these';
  if (!Array.isArray(value)) return wanted;
  const [first] = value as readonly unknown[];
  if (typeof first === 'number') return describeTokenFault(value);
  for (const item of value as readonly unknown[]) {
    if (typeof item === 'string' && typeof first === 'string') continue;
    if (!Array.isArray(item) || !Array.isArray(first)) return wanted;
    const fault = describeTokenFault(item);
    if (fault !== null) return fault;
  }
  return null;
}

function describeTokenFault(tokens: readonly unknown[]): string | null {
  const at = tokens.findIndex((token) => !Number.isSafeInteger(token) || (token as number) < 0);
  if (at === -1) return null;
  const shown = String(JSON.stringify(tokens[at])).slice(0, 40);
  return `token ids are whole numbers from 0, and number ${at} is ${shown}`;
}
