import { type DestinationStream, pino } from 'pino';
import { LogSink } from './log-sink.ts';

export type LogFields = Readonly<Record<string, unknown>>;

/** One JSON object a line. Never given a prompt, an answer or a key. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  child(fields: LogFields): Log;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** A log whose level can be changed while it is in use, with that of its children. */
export interface LeveledLog extends Log {
  setLevel(level: LogLevel): void;
}

/** Logs to stderr unless told otherwise. */
export function createLog(
  level: LogLevel,
  stream: DestinationStream = new LogSink(process.stderr),
): LeveledLog {
  const threshold = { rank: ranks[level] };
  const log = wrap(pino({ level: 'debug', base: null, messageKey: 'message' }, stream), threshold);
  return {
    ...log,
    setLevel: (next) => {
      threshold.rank = ranks[next];
    },
  };
}

const ranks: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 };

export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
};

function wrap(logger: ReturnType<typeof pino>, threshold: { readonly rank: number }): Log {
  const at = (level: 'debug' | 'info' | 'warn' | 'error') => (message: string, fields?: LogFields) => {
    if (ranks[level] >= threshold.rank) logger[level](fields ?? {}, message);
  };
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => wrap(logger.child(fields), threshold),
  };
}
