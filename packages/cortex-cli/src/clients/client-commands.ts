/** `cortex clients` and `cortex launch` on the command line. */
import type { Command } from 'commander';
import { interruptible } from '../interruptible.ts';
import type { Terminal } from '../terminal.ts';
import { type ClientsOptions, showClients } from './clients-command.ts';
import { type LaunchOptions, launchable, launchClient } from './launch-command.ts';

/** What all commands that ask a gateway share. */
interface Shared {
  readonly addGatewayOptions: (command: Command) => Command;
  readonly examples: (lines: readonly (readonly [string, string])[]) => string;
}

export function addClientCommands(program: Command, terminal: Terminal, shared: Shared): void {
  // commander wants it of the parent of a command that passes options through
  program.enablePositionalOptions();
  const clients = program
    .command('clients')
    .description('Show what to write into which client, with the address of this gateway.')
    .argument('[client]', 'only this one')
    .option('-m, --model <id>', 'the model to write there (default: one that is loaded)')
    .option('--json', 'as JSON')
    .addHelpText('after', shared.examples([['cortex clients zed', '']]));
  shared
    .addGatewayOptions(clients)
    .action((name: string | undefined, options: ClientsOptions) =>
      interruptible((signal) => showClients(terminal, name, options, signal)),
    );
  const launch = program
    .command('launch')
    .description(`Start an agent that works with this gateway: ${launchable.join(', ')}.`)
    .argument('<client>', 'which one')
    .argument('[args...]', 'what it is started with')
    .option('-m, --model <id>', 'the model it works with (default: one that is loaded)')
    // what comes after the client's name is the client's
    .passThroughOptions()
    .addHelpText(
      'after',
      shared.examples([
        ['cortex launch claude', 'Claude Code, at this terminal'],
        [
          'cortex launch --model qwen3-8b codex exec "Run the tests"',
          "options of cortex before the client's name",
        ],
      ]),
    );
  shared.addGatewayOptions(launch).action(async (name: string, args: string[], options: LaunchOptions) => {
    process.exitCode = await launchClient(terminal, name, args, options);
  });
}
