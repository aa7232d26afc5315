/** A failure that the person at the terminal can do something about: one line, no stack. */
export class CliError extends Error {
  /** 1 = it failed, 2 = it was asked for in a way that cannot work, 130 = interrupted. */
  readonly exitCode: number;

  constructor(message: string, exitCode = 1, options: { readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}
