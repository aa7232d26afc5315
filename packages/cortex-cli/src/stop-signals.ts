/**
 * Signals that end a foreground command.
 *
 * The first one asks for a clean stop, a later one ends at once. One Ctrl-C under `npx` arrives twice: from
 * the terminal and, forwarded, from npm. Hence repeats within `SAME_PRESS_MS` count as the first.
 */
import { type Clock, systemClock } from 'cortex-core/daemon/clock';
import type { Log } from 'cortex-core/daemon/log';
import type { Terminal } from './terminal.ts';

export const SAME_PRESS_MS = 400;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof SIGNALS)[number];

interface SignalSource {
  on(signal: StopSignal, listener: () => void): unknown;
  off(signal: StopSignal, listener: () => void): unknown;
}

export interface StopHandlers {
  readonly onFirst: (signal: StopSignal) => void;
  readonly onSecond: (signal: StopSignal) => void;
  /** What SIGHUP does where it does not stop; see `isDaemon`. */
  readonly onHangup?: () => void;
}

/**
 * Whether SIGHUP asks to read configuration again. At a terminal it says that the terminal is gone, and then
 * whoever runs there has to go too.
 */
export function isDaemon(terminal: Pick<Terminal, 'stdout' | 'stderr'>): boolean {
  return terminal.stdout.isTTY !== true && terminal.stderr.isTTY !== true;
}

/** Returns what takes the listeners off again. */
export function listenForStop(
  source: SignalSource,
  clock: Pick<Clock, 'monotonicMs'>,
  handlers: StopHandlers,
): () => void {
  let firstAtMs: number | null = null;
  const listeners = SIGNALS.map((signal) => {
    const listener = (): void => {
      if (signal === 'SIGHUP' && handlers.onHangup !== undefined) {
        handlers.onHangup();
        return;
      }
      const nowMs = clock.monotonicMs();
      if (firstAtMs === null) {
        firstAtMs = nowMs;
        handlers.onFirst(signal);
      } else if (nowMs - firstAtMs >= SAME_PRESS_MS) {
        handlers.onSecond(signal);
      }
    };
    source.on(signal, listener);
    return [signal, listener] as const;
  });
  return () => {
    for (const [signal, listener] of listeners) source.off(signal, listener);
  };
}

/**
 * Resolves with the first signal to stop this process, and says so in the log; a second one ends it at once.
 * `onHangup`: what SIGHUP does in a daemon.
 */
export function untilStopped(
  terminal: Pick<Terminal, 'stdout' | 'stderr'>,
  log: Pick<Log, 'info'>,
  onHangup: () => void,
): Promise<void> {
  return new Promise((resolve) => {
    listenForStop(process, systemClock, {
      onFirst: (signal) => {
        log.info('stopping', { signal });
        resolve();
      },
      onSecond: () => process.exit(1),
      ...(isDaemon(terminal) ? { onHangup } : {}),
    });
  });
}

/** The shell's convention for a command that a signal ended. */
export function exitCodeOf(signal: StopSignal): number {
  return { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 }[signal];
}
