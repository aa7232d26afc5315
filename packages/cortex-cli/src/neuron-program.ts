/** The command line of `neuron`: names, options and help. */
import { Command, InvalidArgumentError, Option } from 'commander';
import type { BenchOptions } from './bench-neuron.ts';
import { interruptible } from './interruptible.ts';
import { parsePort, parsePositiveInt } from './program-runner.ts';
import type { Terminal } from './terminal.ts';
import { formatVersion, readVersion } from './version.ts';

export interface ForegroundOptions {
  readonly config?: string;
  readonly port?: number;
}

export function createNeuronProgram(
  terminal: Terminal,
  runForeground: (options: ForegroundOptions) => Promise<void>,
): Command {
  const program = new Command('neuron')
    .description('The daemon of one machine: finds its devices and runs models on them.')
    // What follows "bench" is the command's, also where the daemon has an option of the same name.
    .enablePositionalOptions()
    .option(
      '-c, --config <file>',
      'neuron.toml (default: built-in defaults and NEURON_ variables; env: NEURON_CONFIG)',
    )
    .option('-p, --port <port>', 'port to listen on, 0 = any free one (default: 13131)', parsePort)
    .version(formatVersion('neuron', readVersion()), '-V, --version', 'print the version')
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  neuron                                      on port 13131, all devices\n' +
        '  neuron --config /etc/cortex/neuron.toml\n' +
        '  NEURON_CPU__MEMORY_MB=8192 neuron --port 13132\n' +
        '  neuron bench cortex-tiny                    how fast a model is here',
    )
    .action((options: ForegroundOptions) => runForeground(options));
  addBench(program, terminal);
  return program;
}

function addBench(program: Command, terminal: Terminal): void {
  program
    .command('bench')
    .description('Measure how fast a model is here, in a neuron started for it.')
    .argument('<model>', 'a .gguf file or a model id')
    .option('-s, --streams <list>', 'requests at once, one row each', parseStreams, [1, 4, 8, 16])
    .option('-n, --tokens <n>', 'tokens of each answer', parseTokens, 128)
    .option('-l, --prompt <n>', 'tokens of each prompt', parsePositiveInt, 512)
    .option('-r, --rounds <n>', 'how often; the median counts', parsePositiveInt, 3)
    .option('--json', 'the figures and their conditions as JSON')
    .option('-u, --url <url>', 'measure a running neuron, which has the model loaded')
    .addOption(new Option('--api-key <key>', 'its key, where it has one').env('NEURON_KEY'))
    .option('-c, --config <file>', 'neuron.toml for the neuron that is started (env: NEURON_CONFIG)')
    .option('--context <n>', 'its context (default: what the prompts need)', parsePositiveInt)
    .option('-t, --threads <n>', 'its compute threads', parsePositiveInt)
    .option('--memory-mb <n>', 'its memory for models on the CPU, in MiB', parsePositiveInt)
    .addOption(
      new Option('--device-worker <where>', 'where its device is owned').choices([
        'auto',
        'process',
        'thread',
      ]),
    )
    .addHelpText(
      'after',
      '\nExamples:\n' +
        '  neuron bench ~/models/qwen3-8b.gguf\n' +
        '  neuron bench cortex-tiny --streams 1,2 --json\n' +
        '  neuron bench qwen3-8b --url http://beast:13131',
    )
    .action((model: string, options: BenchOptions) =>
      interruptible(async (signal) => {
        const { runBench } = await import('./bench-command.ts');
        await runBench(terminal, model, options, signal);
      }),
    );
}

function parseStreams(text: string): readonly number[] {
  const counts = text.split(',').map(Number);
  if (/^\d+(,\d+)*$/.test(text) && counts.every((count) => count >= 1 && count <= 256)) return counts;
  throw new InvalidArgumentError('It is a list of numbers from 1 to 256, like 1,4,8.');
}

/** A rate needs a second token. */
function parseTokens(text: string): number {
  const tokens = parsePositiveInt(text);
  if (tokens >= 2) return tokens;
  throw new InvalidArgumentError('It is a whole number of at least 2.');
}
