/** Headers in which clients name a conversation or an agent, the most telling first. */

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

/** Null when the client names none. */
export function sessionOf(header: (name: string) => string | null): string | null {
  for (const name of sessionHeaders) {
    const value = header(name);
    if (value !== null && value !== '') return value.slice(0, sessionCharsMax);
  }
  return null;
}
