/** Which model a client is to be set up with, and its limits, from GET /v1/models. */
import { CliError } from '../cli-error.ts';
import type { GatewayClient } from '../gateway-client.ts';

export interface ChosenModel {
  readonly id: string;
  readonly context: number | null;
  readonly output: number | null;
}

interface Row extends ChosenModel {
  readonly loaded: boolean;
  readonly isAlias: boolean;
  readonly chats: boolean;
}

/**
 * The one that was asked for, whether loaded or not; else one that is loaded and answers in text. Of several
 * the one with the largest context: agents need it.
 */
export async function chooseModel(
  client: GatewayClient,
  wanted: string | undefined,
  signal: AbortSignal,
): Promise<ChosenModel> {
  const rows = readRows(await client.get('/v1/models', signal));
  if (wanted !== undefined) {
    const found = rows.find(({ id }) => id === wanted) ?? (await readUnlisted(client, wanted, signal));
    if (found !== null) return found;
    const names = rows.slice(0, 10).map(({ id }) => id);
    const known = names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`;
    throw new CliError(`the gateway knows no model "${wanted}"; ${known}`, 1);
  }
  const able = rows.filter(({ chats, isAlias }) => chats && !isAlias);
  const loaded = able.filter((row) => row.loaded);
  const [best] = (loaded.length > 0 ? loaded : able).toSorted((a, b) => (b.context ?? 0) - (a.context ?? 0));
  if (best !== undefined) return best;
  throw new CliError('the gateway has no model that answers in text; load one, or name it with --model', 1);
}

/** What an alias with a * stands for is not in the list. */
async function readUnlisted(client: GatewayClient, wanted: string, signal: AbortSignal): Promise<Row | null> {
  try {
    const row = await client.get(`/v1/models/${encodeURIComponent(wanted)}`, signal);
    return readRows({ data: [row] })[0] ?? null;
  } catch (thrown) {
    if (thrown instanceof CliError) return null;
    throw thrown;
  }
}

function readRows(answer: unknown): readonly Row[] {
  const data = fieldOf(answer, 'data');
  return (Array.isArray(data) ? data : []).flatMap((row: unknown): Row[] => {
    const id = fieldOf(row, 'id');
    if (typeof id !== 'string') return [];
    const limit = fieldOf(row, 'limit');
    return [
      {
        id,
        loaded: fieldOf(row, 'loaded') === true,
        isAlias: typeof fieldOf(row, 'alias_of') === 'string',
        chats: answersInText(fieldOf(row, 'capabilities')),
        context: positive(fieldOf(limit, 'context')),
        output: positive(fieldOf(limit, 'output')),
      },
    ];
  });
}

/** Models that embed or rank say so; a model that says nothing may well answer. */
function answersInText(capabilities: unknown): boolean {
  if (!Array.isArray(capabilities) || capabilities.includes('text')) return true;
  return !capabilities.some((each) => each === 'embeddings' || each === 'rerank');
}

function positive(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : null;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}
