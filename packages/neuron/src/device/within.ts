import type { Clock } from 'cortex-core/daemon/clock';

/** Whether one of `events` came within the time. */
export async function within(
  clock: Clock,
  ms: number,
  ...events: readonly Promise<void>[]
): Promise<boolean> {
  let timer: { cancel(): void } | null = null;
  const late = new Promise<false>((resolve) => {
    timer = clock.setTimer(ms, () => resolve(false));
  });
  const came = Promise.race(events).then(() => true);
  return Promise.race([came, late]).finally(() => timer?.cancel());
}
