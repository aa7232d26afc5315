/** The command line of `cortex`: names, options and help; what they do is in the *-command files. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { type CheckOptions, CONFIG_KINDS, checkConfigs } from './check-command.ts';
import { addClientCommands } from './clients/client-commands.ts';
import { type DefragOptions, runDefrag } from './defrag-command.ts';
import type { DoctorOptions } from './doctor-command.ts';
import { type DrainOptions, drainNode } from './drain-command.ts';
import { type ExplainOptions, explainModel } from './explain-command.ts';
import {
  cancelLoad,
  type LoadOptions,
  loadModel,
  type StatusOptions,
  showModels,
  showStatus,
  unloadModel,
} from './fleet-commands.ts';
import { DEFAULT_ENDPOINT, type GatewayAddress } from './gateway-client.ts';
import { interruptible } from './interruptible.ts';
import { parsePort, parsePositiveInt, parseTemperature } from './program-runner.ts';
import { reloadGateway } from './reload-command.ts';
import { type RunOptions, runPrompt } from './run-command.ts';
import type { SimulateOptions } from './simulate-command.ts';
import type { Terminal } from './terminal.ts';
import type { UpOptions } from './up-config.ts';
import { formatVersion, readVersion } from './version.ts';

export function createProgram(terminal: Terminal): Command {
  const program = new Command('cortex')
    .description('One AI endpoint for one to a few hundred machines.')
    .version(formatVersion('cortex', readVersion()), '-V, --version', 'print the version')
    .addHelpText(
      'after',
      '\nStart here:\n' +
        '  cortex up                                   gateway and neuron on this machine\n' +
        '  cortex run cortex-tiny "Who are you?"       ask a model\n' +
        '  cortex status                               what runs where',
    );
  addDaemons(program, terminal);
  addQueries(program, terminal);
  addExplain(program, terminal);
  addDefrag(program, terminal);
  addRun(program, terminal);
  addClientCommands(program, terminal, { addGatewayOptions, examples });
  addLocal(program, terminal);
  return program;
}

function addDaemons(program: Command, terminal: Terminal): void {
  program
    .command('up')
    .description('Run a gateway and a neuron on this machine, with the model that ships and those you name.')
    .option('-p, --port <port>', 'port of the API, 0 = any free one (default: 31313)', parsePort)
    .option('--metrics-port <port>', 'port of the Prometheus metrics (default: 31314)', parsePort)
    .option('--neuron-port <port>', 'port of the neuron (default: 13131)', parsePort)
    .option(
      '--host <address>',
      'address that the API listens on; 0.0.0.0 for other machines (default: 127.0.0.1)',
    )
    .option('-m, --model <path-or-id>', 'a .gguf file or a model id to load; may be repeated', collect)
    .option('-c, --config <file>', 'cortex.toml for the gateway (env: CORTEX_CONFIG)')
    .option('--neuron-config <file>', 'neuron.toml for the neuron (env: NEURON_CONFIG)')
    .option('--memory-mb <n>', 'memory for models on the CPU, in MiB', parsePositiveInt)
    .option(
      '--nodes <n>',
      'neurons on this machine, each with a part of its memory (default: 1)',
      parsePositiveInt,
    )
    .option('--budgets <list>', 'MiB of each of them, e.g. 200,400,800', parseBudgets)
    .addOption(
      new Option('--device-worker <where>', 'where a device is owned (default: auto)').choices([
        'auto',
        'process',
        'thread',
      ]),
    )
    .addHelpText(
      'after',
      examples([
        ['cortex up', 'the model that ships, on http://127.0.0.1:31313'],
        ['cortex up --model ~/models/qwen3-8b.gguf', 'a model of your own'],
        ['cortex up --host 0.0.0.0', 'reachable from other machines'],
        ['cortex up --nodes 3 --budgets 200,400,800', 'a fleet of three on one machine, to try things'],
        ['cortex up --port 0 --metrics-port 0 --neuron-port 0', 'ports that are free'],
      ]),
    )
    .action(async (options: UpOptions) => {
      // The daemons' code is loaded by the commands that run them: the others answer sooner.
      const { runUp } = await import('./up-command.ts');
      await runUp(terminal, options);
    });
  program
    .command('serve')
    .description('Run the gateway alone, in the foreground, with JSON logs on stderr.')
    .option('-c, --config <file>', 'cortex.toml (env: CORTEX_CONFIG)')
    .addHelpText('after', examples([['cortex serve --config /etc/cortex/cortex.toml', '']]))
    .action(async (options: { config?: string }) => {
      const { runServe } = await import('./serve-command.ts');
      await runServe(terminal, options);
    });
}

function addQueries(program: Command, terminal: Terminal): void {
  const status = program
    .command('status')
    .description('Show the nodes, their memory and what is loaded on them.')
    .option('--json', 'the same as JSON, one object a line')
    .option('-w, --watch', 'again every second, until Ctrl-C')
    .addHelpText(
      'after',
      examples([
        ['cortex status --watch', ''],
        ['cortex status --json | jq .health', ''],
      ]),
    );
  addGatewayOptions(status).action((options: StatusOptions) =>
    interruptible((signal) => showStatus(terminal, options, signal)),
  );
  const models = program
    .command('models')
    .description('List the models that can be asked for, loaded or not, and where.')
    .option('--json', 'the answer of GET /v1/models')
    .addHelpText('after', examples([["cortex models --json | jq -r '.data[].id'", '']]));
  addGatewayOptions(models).action((options: GatewayAddress & { json?: boolean }) =>
    interruptible((signal) => showModels(terminal, options, signal)),
  );
  addLoads(program, terminal);
  addDrain(program, terminal);
  const reload = program
    .command('reload')
    .description('Let the gateway read its configuration again, and print what changed.')
    .option('--json', "the gateway's answer");
  addGatewayOptions(reload).action((options: GatewayAddress & { json?: boolean }) =>
    interruptible((signal) => reloadGateway(terminal, options, signal)),
  );
}

function addDrain(program: Command, terminal: Terminal): void {
  const command = program
    .command('drain')
    .description('Take a node out of service: no new requests or loads, running ones end.')
    .argument('<node>', 'name of the node, as in "cortex status"')
    .option('--cordon', 'only no more loads; what is loaded there goes on serving')
    .option(
      '--deadline <seconds>',
      'cut what still runs after that time; streams go on at another node that can',
      parsePositiveInt,
    )
    .option('--wait', 'until nothing runs there any more')
    .option('--undo', 'put it back into service, as "cortex undrain" does')
    .option('--json', "the gateway's answer")
    .addHelpText(
      'after',
      examples([
        ['cortex drain beast --wait', 'before maintenance'],
        ['cortex undrain beast', 'after it'],
      ]),
    );
  addGatewayOptions(command).action((node: string, options: DrainOptions) =>
    interruptible((signal) => drainNode(terminal, node, options, signal)),
  );
  const back = program
    .command('undrain')
    .description('Put a drained or cordoned node back into service.')
    .argument('<node>', 'name of the node, as in "cortex status"')
    .option('--json', "the gateway's answer")
    .addHelpText('after', examples([['cortex undrain beast', '']]));
  addGatewayOptions(back).action((node: string, options: DrainOptions) =>
    interruptible((signal) => drainNode(terminal, node, { ...options, undo: true }, signal)),
  );
}

function addLoads(program: Command, terminal: Terminal): void {
  for (const { name, does, node, act } of [
    {
      name: 'load',
      does: 'Load a model, showing the progress.',
      node: 'the node to load it on',
      act: loadModel,
    },
    { name: 'unload', does: 'Take a model out of memory.', node: 'only on this node', act: unloadModel },
    { name: 'cancel', does: 'Stop a load that is under way.', node: 'only on this node', act: cancelLoad },
  ]) {
    const command = program
      .command(name)
      .description(does)
      .argument('<model>', 'id of the model, as in "cortex models"')
      .option('--node <name>', node)
      .option('--json', "the gateway's answer")
      .addHelpText('after', examples([[`cortex ${name} cortex-tiny`, '']]));
    addGatewayOptions(command).action((model: string, options: LoadOptions) =>
      interruptible((signal) => act(terminal, model, options, signal)),
    );
  }
}

function addExplain(program: Command, terminal: Terminal): void {
  const command = program
    .command('explain')
    .description('Show where a request for a model would go now, and why not elsewhere.')
    .argument('<model>', 'id of the model, as in "cortex models"')
    .option('--prompt-tokens <n>', 'length of its prompt, in tokens (default: 1000)', parsePositiveInt)
    .option('--json', "the gateway's answer")
    .addHelpText('after', examples([['cortex explain cortex-tiny --prompt-tokens 20000', '']]));
  addGatewayOptions(command).action((model: string, options: ExplainOptions) =>
    interruptible((signal) => explainModel(terminal, model, options, signal)),
  );
}

function addDefrag(program: Command, terminal: Terminal): void {
  const command = program
    .command('defrag')
    .description('Move models between the devices of a node where that makes room, and renew worn devices.')
    .argument('[node]', 'name of the node, as in "cortex status"; all when left out')
    .option('-m, --model <id>', 'make room for this model')
    .option('-n, --dry-run', 'print what would be done, and do nothing')
    .option('--json', "the gateway's answer")
    .addHelpText(
      'after',
      examples([
        ['cortex defrag --dry-run', 'what would be done, on every node'],
        ['cortex defrag beast --model qwen3-32b', 'room for one model, on one node'],
      ]),
    );
  addGatewayOptions(command).action((node: string | undefined, options: DefragOptions) =>
    interruptible((signal) => runDefrag(terminal, node, options, signal)),
  );
}

function addRun(program: Command, terminal: Terminal): void {
  const command = program
    .command('run')
    .description('Ask a model and print its answer as it comes. Without a prompt, it is read from stdin.')
    .argument('<model>', 'id of the model, as in "cortex models"')
    .argument('[prompt]', 'what to ask')
    .option('-s, --system <text>', 'system message')
    .option('-n, --max-tokens <n>', 'longest answer, in tokens', parsePositiveInt)
    .option('-t, --temperature <t>', '0 = always the likeliest token', parseTemperature)
    .option('--json', 'the whole answer as one JSON object, when it is complete')
    .addHelpText(
      'after',
      examples([
        ['cortex run cortex-tiny "What is the capital of France?"', ''],
        ['git diff | cortex run qwen3-8b --system "Write a commit message."', ''],
      ]),
    );
  addGatewayOptions(command).action((model: string, prompt: string | undefined, options: RunOptions) =>
    interruptible((signal) => runPrompt(terminal, model, prompt, options, signal)),
  );
}

function addLocal(program: Command, terminal: Terminal): void {
  const config = program.command('config').description('Work with configuration files.');
  config
    .command('check')
    .description('Check files and print every fault; without names, those of this folder.')
    .argument('[files...]', 'cortex.toml, models.toml, neuron.toml, or a name that begins so')
    .addOption(
      new Option('--kind <kind>', 'what the files are, where their names do not tell').choices(CONFIG_KINDS),
    )
    .option('--json', 'the faults as JSON')
    .addHelpText(
      'after',
      examples([
        ['cortex config check /etc/cortex/*.toml', ''],
        ['cortex config check --kind neuron gpu-box.toml', ''],
      ]),
    )
    .action((files: string[], options: CheckOptions) => checkConfigs(terminal, files, options));
  addSimulate(program, terminal);
  program
    .command('doctor')
    .description('Show what this machine has for models, and which package to add for its GPU.')
    .option('--neuron-config <file>', 'neuron.toml (env: NEURON_CONFIG)')
    .option('--json', 'as JSON')
    .addHelpText('after', examples([['cortex doctor', '']]))
    .action(async (options: DoctorOptions) => {
      const { runDoctor } = await import('./doctor-command.ts');
      await runDoctor(terminal, options);
    });
  program
    .command('version')
    .description('Print the version.')
    .option('--json', 'as JSON')
    .action((options: { json?: boolean }) => {
      const found = readVersion();
      terminal.stdout.write(
        `${options.json === true ? JSON.stringify(found) : formatVersion('cortex', found)}\n`,
      );
    });
}

function addSimulate(program: Command, terminal: Terminal): void {
  const strategies = ['lru', 'priority', 'cost'];
  program
    .command('simulate')
    .description('Play a trace of requests against a fleet on a virtual clock, once per eviction strategy.')
    .argument('[trace]', 'one request a line, as JSON; docs/scheduling.md tells the fields')
    .option('--fleet <file>', 'fleet.toml: machines and models')
    .addOption(new Option('--strategy <names...>', 'only these (default: all)').choices(strategies))
    .addOption(
      new Option('--generate <name>', 'make a trace and a fleet instead').choices([
        'alternation',
        'chat-embedding',
        'orchestrator',
        'agents',
        'diurnal',
      ]),
    )
    .option('--seed <n>', 'make the same trace again', parsePositiveInt)
    .option('--out <folder>', 'with --generate: write trace and fleet there, simulate nothing')
    .option('--json', 'the numbers as JSON')
    .addHelpText(
      'after',
      examples([
        ['cortex simulate monday.jsonl --fleet fleet.toml', ''],
        ['cortex simulate --generate agents --seed 1 --strategy lru cost', ''],
        ['cortex simulate --generate orchestrator --out traces', 'files to start from'],
      ]),
    )
    .action(async (trace: string | undefined, options: SimulateOptions) => {
      const { runSimulate } = await import('./simulate-command.ts');
      runSimulate(terminal, trace, options);
    });
}

function addGatewayOptions(command: Command): Command {
  return command
    .addOption(
      new Option('-e, --endpoint <url>', 'address of the gateway')
        .env('CORTEX_ENDPOINT')
        .default(DEFAULT_ENDPOINT),
    )
    .addOption(
      new Option('--api-key <key>', 'key for the gateway, where it wants one').env('CORTEX_API_KEY'),
    );
}

function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

function parseBudgets(text: string): readonly number[] {
  const sizes = text.split(',').map(Number);
  if (/^\d+(,\d+)*$/.test(text) && sizes.every((mb) => mb >= 1 && mb <= 1_000_000_000)) return sizes;
  throw new InvalidArgumentError('It is a list of sizes in MiB, like 200,400,800.');
}

function examples(lines: readonly (readonly [string, string])[]): string {
  const width = Math.max(...lines.map(([line]) => line.length));
  const shown = lines.map(([line, why]) => `  ${line.padEnd(width)}  ${why}`.trimEnd());
  return `\nExamples:\n${shown.join('\n')}`;
}
