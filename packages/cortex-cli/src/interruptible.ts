import { systemClock } from 'cortex-core/daemon/clock';
import { CliError } from './cli-error.ts';
import { exitCodeOf, listenForStop, type StopSignal } from './stop-signals.ts';

/** Runs until done or interrupted; an interruption ends the request too, and exits as shells expect. */
export async function interruptible(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  let stoppedBy: StopSignal | null = null;
  const forget = listenForStop(process, systemClock, {
    onFirst: (signal) => {
      stoppedBy = signal;
      stop.abort();
    },
    onSecond: (signal) => process.exit(exitCodeOf(signal)),
  });
  try {
    await work(stop.signal);
  } catch (thrown) {
    if (stoppedBy !== null) throw new CliError('', exitCodeOf(stoppedBy));
    throw thrown;
  } finally {
    forget();
  }
}
