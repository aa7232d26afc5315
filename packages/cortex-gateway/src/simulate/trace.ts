/**
 * A trace: one JSON object a line, one line a request. It arrives `at` seconds after the start, or `delay`
 * seconds after the requests it names in `after` were answered: that is how a conversation or an agent waits
 * for its own answers.
 */
import { z } from 'zod';

const requestSchema = z.strictObject({
  id: z.string().max(128).optional(),
  model: z.string().min(1).max(512),
  at: z.number().nonnegative().optional(),
  after: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
  delay: z.number().nonnegative().default(0),
  key: z.string().max(128).default(''),
  session: z.string().max(128).default(''),
  priority: z.number().int().min(-100).max(100).default(0),
  prompt_tokens: z.number().int().nonnegative(),
  completion_tokens: z.number().int().nonnegative(),
});

export interface TraceRequest {
  readonly id: string;
  readonly model: string;
  /** Arrival, or the delay after the last of `after`; ms. */
  readonly atMs: number;
  readonly after: readonly string[];
  readonly key: string;
  readonly session: string;
  readonly priority: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Throws an Error that names the line and the field. */
export function parseTrace(text: string): readonly TraceRequest[] {
  const requests: TraceRequest[] = [];
  const known = new Set<string>();
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const request = parseLine(line, i + 1);
    if (known.has(request.id)) throw new Error(`line ${i + 1}: id "${request.id}" is used twice`);
    const missing = request.after.find((id) => !known.has(id));
    if (missing !== undefined) {
      throw new Error(`line ${i + 1}: after: no request "${missing}" on a line before`);
    }
    known.add(request.id);
    requests.push(request);
  }
  if (requests.length === 0) throw new Error('the trace has no requests; write one JSON object a line');
  return requests;
}

export function formatTrace(requests: readonly TraceRequest[]): string {
  const lines = requests.map((each) => {
    const { id, model, atMs, after, key, session, priority } = each;
    const when =
      after.length === 0 ? { at: atMs / 1000 } : { after, ...(atMs > 0 ? { delay: atMs / 1000 } : {}) };
    return JSON.stringify({
      id,
      model,
      ...when,
      ...(key === '' ? {} : { key }),
      ...(session === '' ? {} : { session }),
      ...(priority === 0 ? {} : { priority }),
      prompt_tokens: each.promptTokens,
      completion_tokens: each.completionTokens,
    });
  });
  return `${lines.join('\n')}\n`;
}

function parseLine(line: string, number: number): TraceRequest {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Error(`line ${number}: is not JSON`);
  }
  const parsed = requestSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new Error(`line ${number}: ${issue?.path.join('.') || 'the line'}: ${issue?.message}`);
  }
  const { data } = parsed;
  const after = data.after === undefined ? [] : [data.after].flat();
  if ((data.at === undefined) === (after.length === 0)) {
    throw new Error(`line ${number}: give either "at" or "after"`);
  }
  return {
    id: data.id ?? `#${number}`,
    model: data.model,
    atMs: Math.round((data.at ?? data.delay) * 1000),
    after,
    key: data.key,
    session: data.session,
    priority: data.priority,
    promptTokens: data.prompt_tokens,
    completionTokens: data.completion_tokens,
  };
}
