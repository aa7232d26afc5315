/** Runs a commander program: one line per failure, 1 = failed, 2 = used wrongly. */
import { type Command, CommanderError, InvalidArgumentError } from 'commander';
import { ConfigError } from 'cortex-core/config/load';
import { systemClock } from 'cortex-core/daemon/clock';
import { CliError } from './cli-error.ts';
import type { Terminal } from './terminal.ts';

const FLUSH_MS_MAX = 5000;

/** Ends the process with its exit code. */
export async function runProgram(program: Command, name: string, terminal: Terminal): Promise<void> {
  // `cortex models | head` closes the pipe early, which is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  configure(program, name, terminal);
  try {
    await program.parseAsync(process.argv);
  } catch (thrown) {
    process.exitCode = reportFailure(thrown, name, terminal);
  }
  // Waits for what was written, not for sockets that idle, nor for ever for whoever does not read it. An
  // empty write calls back after those before it.
  systemClock.setTimer(FLUSH_MS_MAX, () => process.exit());
  process.stdout.write('', () => process.stderr.write('', () => process.exit()));
}

/** Prints it and returns the exit code. */
function reportFailure(thrown: unknown, name: string, terminal: Terminal): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
  const prefix = terminal.errorStyle.red(`${name}:`);
  if (thrown instanceof ConfigError) {
    for (const line of thrown.message.split('\n')) terminal.stderr.write(`${prefix} ${line}\n`);
    return 1;
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (message !== '') terminal.stderr.write(`${prefix} ${message}\n`);
  return thrown instanceof CliError ? thrown.exitCode : 1;
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65535) return port;
  throw new InvalidArgumentError('A port is a number from 0 to 65535; 0 = any free one.');
}

export function parsePositiveInt(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && Number.isSafeInteger(value)) return value;
  throw new InvalidArgumentError('It is a whole number of at least 1.');
}

export function parseTemperature(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (value >= 0 && value <= 10) return value;
  throw new InvalidArgumentError('It is a number from 0 (always the likeliest token) to 10.');
}

function configure(program: Command, name: string, terminal: Terminal): void {
  for (const command of [program, ...program.commands, ...program.commands.flatMap((c) => c.commands)]) {
    const path = pathOf(command, program, name);
    command.exitOverride();
    command.showHelpAfterError(false);
    command.configureOutput({
      outputError: (text, write) => write(`${toOneLine(text, name, path, terminal)}\n`),
    });
  }
}

/** commander says `error: unknown option '--prot'\n(Did you mean --port?)`. */
function toOneLine(text: string, name: string, path: string, terminal: Terminal): string {
  const [first = '', ...rest] = text.trim().split('\n');
  // Without a subcommand, commander hands over the help text itself.
  if (!first.startsWith('error: ')) return text.trimEnd();
  const hint = rest.map((line) => ` ${line.trim()}`).join('');
  const message = first.slice('error: '.length).replace(/\.$/, '');
  return `${terminal.errorStyle.red(`${name}:`)} ${message}${hint}; see "${path} --help"`;
}

function pathOf(command: Command, program: Command, name: string): string {
  const names: string[] = [];
  for (let at: Command | null = command; at !== null && at !== program; at = at.parent)
    names.unshift(at.name());
  return [name, ...names].join(' ');
}
