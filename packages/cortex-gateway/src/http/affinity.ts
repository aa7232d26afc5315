/** By what a request's prefix is remembered: the client's session, its cache key, or the prompt's head. */
import type { IncomingHttpHeaders } from 'node:http';
import type { InferenceRequest } from '../dialects/dialect.ts';
import type { Affinity } from '../fleet/ask.ts';
import type { Principal } from '../quota/principals.ts';
import { headerOf } from './headers.ts';
import { sessionOf } from './session-header.ts';

export function affinityOf(
  headers: IncomingHttpHeaders,
  { promptKey }: Pick<InferenceRequest, 'promptKey'>,
  { keyId }: Principal,
): Affinity | null {
  const named = sessionOf((name) => headerOf(headers, name));
  // a session is one client's: another key's session of that name is another one
  if (named !== null) return sessionKey(keyId, named);
  if (promptKey === undefined) return null;
  const { session, head, headTokens } = promptKey;
  return session === null ? { key: `head ${head}`, headTokens } : sessionKey(keyId, session);
}

function sessionKey(keyId: string, session: string): Affinity {
  return { key: `session ${keyId} ${session}`, headTokens: null };
}
