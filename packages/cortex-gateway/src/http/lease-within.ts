import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { Ticket } from '../fleet/fleet-options.ts';
import type { Lease } from '../fleet/lease.ts';
import type { LoadStatus } from '../fleet/load-job.ts';

/** The ticket's lease, or null when it does not come in time: then it is given back as soon as it comes. */
export async function leaseWithin(ticket: Ticket, ms: number, clock: Clock): Promise<Lease | null> {
  let timer: { cancel(): void } | null = null;
  const late = new Promise<null>((resolve) => {
    timer = clock.setTimer(ms, () => resolve(null));
  });
  try {
    const lease = await Promise.race([ticket.ready, late]);
    if (lease !== null) return lease;
  } finally {
    (timer as { cancel(): void } | null)?.cancel();
  }
  ticket.ready.then(
    (lease) => lease.release(),
    () => {},
  );
  return null;
}

/** What a client is told whose lease did not come in time. `status`: of the load it waited for, if any. */
export function notYet(model: string, { node }: Ticket, status: LoadStatus | null): AppError {
  const doing = status === null ? 'is busy' : 'is being loaded';
  return new AppError('model_loading', `model "${model}" ${doing} on ${node}; try again`, {
    retryAfterSecs: Math.min(Math.max(status?.eta ?? 10, 1), 120),
    extras: { loading: status ?? { node, state: 'queued', percent: null, eta: null } },
  });
}
