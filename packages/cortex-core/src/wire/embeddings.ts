/** OpenAI's embeddings request and the rerank request that Jina and Cohere share. */
import { z } from 'zod';

const int = z.number().int();
const tokens = z.array(int);

/** As OpenAI. */
const inputsMax = 2048;
const documentsMax = 1000;

export const embeddingsRequestSchema = z.looseObject({
  model: z.string(),
  input: z.union([
    z.string(),
    z.array(z.string()).min(1).max(inputsMax),
    tokens.min(1),
    z.array(tokens).min(1).max(inputsMax),
  ]),
  encoding_format: z.string().nullish(),
  dimensions: int.min(1).nullish(),
  user: z.unknown().optional(),
});

const textSchema = z.union([z.string(), z.looseObject({ text: z.string() })]);

export const rerankRequestSchema = z.looseObject({
  model: z.string(),
  query: textSchema,
  documents: z.array(textSchema).min(1).max(documentsMax),
  top_n: int.min(1).nullish(),
  return_documents: z.boolean().nullish(),
});
