/** Who asks, as the waiting line orders those that wait. */
import { AppError } from 'cortex-core/wire/errors';
import type { Asker } from '../fleet/ask.ts';
import type { Principal } from '../quota/principals.ts';

/** Headers in which clients name a conversation or an agent, the most telling first. */
const sessionHeaders = ['x-session-id', 'x-claude-code-session-id', 'session_id', 'x-session-affinity'];
const sessionCharsMax = 128;
const priorityLeast = -100;

/** Throws `invalid_request` for a priority that is no number; one above the key's is lowered to it. */
export function askerOf(header: (name: string) => string | null, principal: Principal): Asker {
  const session = sessionHeaders.map(header).find((value) => value !== null && value !== '') ?? '';
  return {
    key: principal.keyId,
    session: session.slice(0, sessionCharsMax),
    priority: priorityOf(header('x-cortex-priority'), principal),
  };
}

function priorityOf(asked: string | null, principal: Principal): number {
  if (asked === null || asked.trim() === '') return principal.priority;
  const value = Number(asked);
  if (!Number.isInteger(value)) {
    throw new AppError('invalid_request', 'x-cortex-priority: must be a whole number, such as 0 or 10', {
      param: 'x-cortex-priority',
    });
  }
  return Math.max(priorityLeast, Math.min(value, principal.priorityMax));
}
