import type { Clock } from 'cortex-core/daemon/clock';
import type { Ticket } from '../fleet/fleet-options.ts';
import type { Lease } from '../fleet/lease.ts';

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
