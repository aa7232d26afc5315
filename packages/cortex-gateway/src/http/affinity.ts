/** By what a request's prefix is remembered: the client's session, its cache key, or the prompt's head. */
import type { IncomingHttpHeaders } from 'node:http';
import type { InferenceRequest } from '../dialects/dialect.ts';
import type { Affinity } from '../fleet/ask.ts';
import type { Principal } from '../quota/principals.ts';
import { headerOf } from './headers.ts';

/** As clients send them: proxies and opencode, Claude Code, Codex. */
const sessionHeaders = [
  'x-session-affinity',
  'x-session-id',
  'x-claude-code-session-id',
  'session_id',
  'session-id',
  'conversation_id',
  'x-conversation-id',
];
const sessionCharsMax = 200;

export function affinityOf(
  headers: IncomingHttpHeaders,
  { promptKey }: Pick<InferenceRequest, 'promptKey'>,
  { keyId }: Principal,
): Affinity | null {
  for (const name of sessionHeaders) {
    const value = headerOf(headers, name);
    // a session is one client's: another key's session of that name is another one
    if (value !== null && value !== '') return sessionKey(keyId, value.slice(0, sessionCharsMax));
  }
  if (promptKey === undefined) return null;
  const { session, head, headTokens } = promptKey;
  return session === null ? { key: `head ${head}`, headTokens } : sessionKey(keyId, session);
}

function sessionKey(keyId: string, session: string): Affinity {
  return { key: `session ${keyId} ${session}`, headTokens: null };
}
