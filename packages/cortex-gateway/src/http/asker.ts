/** Who asks, as the waiting line orders those that wait. */
import { AppError } from 'cortex-core/wire/errors';
import type { Asker } from '../fleet/ask.ts';
import type { Principal } from '../quota/principals.ts';
import { sessionOf } from './session-header.ts';

const priorityLeast = -100;

/** Throws `invalid_request` for a priority that is no number; one above the key's is lowered to it. */
export function askerOf(header: (name: string) => string | null, principal: Principal): Asker {
  return {
    key: principal.keyId,
    session: sessionOf(header) ?? '',
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
