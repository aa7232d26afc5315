/** What is wrong with a configuration: all faults at once, each with place, key and nearest key. */

export interface ConfigFault {
  /** The file, `environment NAME`, or a name for the whole where there is no file. */
  readonly source: string;
  readonly line: number | null;
  readonly column: number | null;
  /** Dotted key such as `gateway.poll_interval_secs` or `neurons[0].endpoint`; empty for the file itself. */
  readonly key: string;
  readonly message: string;
  /** The nearest known key or value. */
  readonly suggestion: string | null;
}

/** Its message has one line per fault; `faults` holds the same as data. */
export class ConfigError extends Error {
  readonly faults: readonly ConfigFault[];

  constructor(faults: readonly ConfigFault[]) {
    super(faults.map(formatFault).join('\n'));
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

/** `file:line key: what is wrong; did you mean "poll_interval_secs"?` */
export function formatFault(fault: ConfigFault): string {
  const line = fault.line === null ? '' : `:${fault.line}`;
  const column = fault.column === null ? '' : `:${fault.column}`;
  const key = fault.key === '' ? '' : ` ${fault.key}`;
  const hint = fault.suggestion === null ? '' : `; did you mean "${fault.suggestion}"?`;
  return `${fault.source}${line}${column}${key}: ${fault.message}${hint}`;
}
