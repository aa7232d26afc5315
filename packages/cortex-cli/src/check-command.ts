/** `cortex config check`: every fault of every file, before a daemon meets them. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { formatFault } from 'cortex-core/config/config-error';
import { ConfigError, type ConfigFault, type ConfigKind, loadConfig } from 'cortex-core/config/load';
import { CliError } from './cli-error.ts';
import type { Terminal } from './terminal.ts';

export const CONFIG_KINDS = ['cortex', 'models', 'neuron'] as const satisfies readonly ConfigKind[];

export interface CheckOptions {
  readonly kind?: ConfigKind;
  readonly json?: boolean;
}

export function checkConfigs(terminal: Terminal, files: readonly string[], options: CheckOptions): void {
  const chosen = files.length > 0 ? files : CONFIG_KINDS.map((kind) => `${kind}.toml`).filter(isHere);
  if (chosen.length === 0) {
    throw new CliError('no cortex.toml, models.toml or neuron.toml here; name the file to check', 2);
  }
  const results = chosen.map((file) => {
    const kind = options.kind ?? kindOf(file);
    return { file, kind, faults: findFaults(file, kind, terminal.env) };
  });
  const count = results.reduce((sum, result) => sum + result.faults.length, 0);
  if (options.json === true) {
    terminal.stdout.write(`${JSON.stringify({ ok: count === 0, files: results })}\n`);
  } else {
    for (const { file, kind, faults } of results) {
      if (faults.length === 0) terminal.stdout.write(`${file}: ${terminal.style.green('ok')} (${kind})\n`);
      for (const fault of faults) terminal.stdout.write(`${terminal.style.red(formatFault(fault))}\n`);
    }
  }
  // What is wrong has been said.
  if (count > 0) throw new CliError('');

  function isHere(file: string): boolean {
    return existsSync(join(terminal.cwd, file));
  }
}

/** By the name's first word: `cortex.toml`, `neuron.example.toml`, `/etc/cortex/models.toml`. */
function kindOf(file: string): ConfigKind {
  const name = basename(file).toLowerCase();
  const kind = CONFIG_KINDS.find((candidate) => name.split(/[.\-_]/)[0] === candidate);
  if (kind !== undefined) return kind;
  const known = CONFIG_KINDS.join(', ');
  throw new CliError(`the name of ${file} does not tell what it configures; add --kind, one of ${known}`, 2);
}

function findFaults(file: string, kind: ConfigKind, env: Terminal['env']): readonly ConfigFault[] {
  try {
    loadConfig(kind, { path: file, env });
    return [];
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    return thrown.faults;
  }
}
