/**
 * `cortex launch claude|codex|opencode`: starts the client with everything it needs in its environment and
 * its arguments. No file is written, so whatever the person has configured is as it was afterwards.
 */
import { spawn } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { delimiter, join } from 'node:path';
import { CliError } from '../cli-error.ts';
import { type GatewayAddress, GatewayClient } from '../gateway-client.ts';
import type { Terminal } from '../terminal.ts';
import { type ChosenModel, chooseModel } from './chosen-model.ts';
import { KEY_PLACEHOLDER, type LaunchPlan } from './client-recipe.ts';
import { toRecipeInput } from './clients-command.ts';
import { recipes } from './recipes.ts';

export interface LaunchOptions extends GatewayAddress {
  readonly model?: string;
}

export const launchable: readonly string[] = recipes.flatMap(({ name, launch }) =>
  launch === undefined ? [] : [name],
);

/** Resolves with the client's exit code, 128 + n where signal n ended it. */
export async function launchClient(
  terminal: Terminal,
  name: string,
  args: readonly string[],
  options: LaunchOptions,
): Promise<number> {
  const launch = recipes.find((recipe) => recipe.name === name)?.launch;
  if (launch === undefined) {
    throw new CliError(`cannot launch "${name}"; it can launch ${launchable.join(', ')}`, 2);
  }
  const client = new GatewayClient(options);
  // the client is not there yet, so an interrupt may simply end this process
  const model = await chooseModel(client, options.model, new AbortController().signal);
  const plan = launch(toRecipeInput(client.endpoint, model, options.apiKey || KEY_PLACEHOLDER));
  const file = await findProgram(plan.program, terminal.env);
  if (file === null) {
    throw new CliError(`${plan.program} is not on PATH; install it with "${plan.install}"`, 1);
  }
  warnOfContext(terminal, name, plan, model);
  return runToEnd(file, [...plan.args, ...args], toEnv(plan, terminal.env));
}

/** It is started all the same: the person may know better. */
function warnOfContext(terminal: Terminal, name: string, plan: LaunchPlan, model: ChosenModel): void {
  if (model.context === null || model.context >= plan.promptTokens * 1.5) return;
  terminal.stderr.write(
    `${terminal.errorStyle.dim(
      `cortex: "${model.id}" has a context of ${model.context} tokens, and ${name} alone takes about ` +
        `${plan.promptTokens}; load it with a larger one`,
    )}\n`,
  );
}

function toEnv({ env }: LaunchPlan, own: Terminal['env']): NodeJS.ProcessEnv {
  const given = Object.entries({ ...own, ...env }).filter(([, value]) => value !== null);
  return Object.fromEntries(given) as NodeJS.ProcessEnv;
}

async function findProgram(program: string, env: Terminal['env']): Promise<string | null> {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd'] : [''];
  for (const folder of (env.PATH ?? '').split(delimiter)) {
    for (const ending of folder === '' ? [] : endings) {
      const file = join(folder, `${program}${ending}`);
      if (existsSync(file) && (await isExecutable(file))) return file;
    }
  }
  return null;
}

function isExecutable(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  );
}

const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/**
 * A Ctrl-C at a terminal reaches the client by itself; here it only must not end this process before the
 * client did. What somebody sends to this process alone is passed on.
 */
function runToEnd(file: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env, stdio: 'inherit', shell: file.endsWith('.cmd') });
    const listeners = PASSED_ON.map((signal) => {
      const pass = (): void => {
        const fromTerminal = signal === 'SIGINT' && process.stdin.isTTY === true;
        if (!fromTerminal) child.kill(signal);
      };
      process.on(signal, pass);
      return [signal, pass] as const;
    });
    const forget = (): void => {
      for (const [signal, pass] of listeners) process.off(signal, pass);
    };
    child.once('error', (error) => {
      forget();
      reject(new CliError(`${file} cannot be started: ${error.message}`, 1, { cause: error }));
    });
    child.once('exit', (code, signal) => {
      forget();
      resolve(code ?? 128 + (signal === null ? 1 : osConstants.signals[signal]));
    });
  });
}
