/** `cortex simulate`: what a trace of requests would have met on a fleet, per eviction strategy. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fleetConfigSchema } from 'cortex-core/config/fleet-config';
import { loadConfig } from 'cortex-core/config/load';
import { formatFleetFile, fromFleetFile } from 'cortex-gateway/simulate/fleet-file';
import { type SimulationReport, toReport } from 'cortex-gateway/simulate/report';
import { type SimulationOptions, simulate } from 'cortex-gateway/simulate/simulation';
import { formatTrace, parseTrace } from 'cortex-gateway/simulate/trace';
import { generateTrace, type TraceName } from 'cortex-gateway/simulate/traces';
import { CliError } from './cli-error.ts';
import { renderTable } from './table.ts';
import type { Terminal } from './terminal.ts';

type Strategy = SimulationOptions['strategy'];

export interface SimulateOptions {
  readonly fleet?: string;
  readonly strategy?: readonly Strategy[];
  readonly generate?: TraceName;
  readonly seed?: number;
  readonly out?: string;
  readonly json?: boolean;
}

const strategies: readonly Strategy[] = ['lru', 'priority', 'cost'];
type Input = Omit<SimulationOptions, 'strategy'>;

export function runSimulate(terminal: Terminal, trace: string | undefined, options: SimulateOptions): void {
  const input =
    options.generate === undefined ? fromFiles(terminal, trace, options) : generate(terminal, trace, options);
  if (input === null) return;
  const chosen = options.strategy ?? strategies;
  const reports = chosen.map((strategy) => toReport(strategy, simulate({ ...input, strategy })));
  const text = options.json === true ? JSON.stringify(reports, null, 2) : renderReports(reports);
  terminal.stdout.write(`${text}\n`);
}

function fromFiles(terminal: Terminal, trace: string | undefined, options: SimulateOptions): Input {
  if (trace === undefined || options.fleet === undefined) {
    throw new CliError('name a trace and its fleet: cortex simulate TRACE.jsonl --fleet fleet.toml', 2);
  }
  const { fleet, rules } = fromFleetFile(loadConfig('fleet', { path: resolve(terminal.cwd, options.fleet) }));
  if (fleet.nodes.length === 0) throw new CliError(`${options.fleet} has no [[nodes]]`);
  let text: string;
  try {
    text = readFileSync(resolve(terminal.cwd, trace), 'utf8');
  } catch (cause) {
    throw new CliError(`cannot read ${trace}: ${(cause as Error).message}`, 1, { cause });
  }
  try {
    return { fleet, rules, trace: parseTrace(text) };
  } catch (cause) {
    throw new CliError(`${trace}: ${(cause as Error).message}`, 1, { cause });
  }
}

/** Null when the files were all that was asked for. */
function generate(terminal: Terminal, trace: string | undefined, options: SimulateOptions): Input | null {
  const name = options.generate as TraceName;
  if (trace !== undefined || options.fleet !== undefined) {
    throw new CliError('--generate makes its own trace and fleet; leave TRACE and --fleet out', 2);
  }
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const scenario = generateTrace(name, seed);
  terminal.stderr.write(`${name}, --seed ${seed}: ${scenario.requests.length} requests\n`);
  if (options.out === undefined) {
    const { fleet, rules } = fromFleetFile(fleetConfigSchema.parse({}));
    return { fleet: { ...fleet, ...scenario }, rules, trace: scenario.requests };
  }
  const folder = resolve(terminal.cwd, options.out);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.jsonl`), formatTrace(scenario.requests));
  writeFileSync(join(folder, `${name}.fleet.toml`), formatFleetFile(scenario));
  terminal.stdout.write(`wrote ${name}.jsonl and ${name}.fleet.toml to ${options.out}\n`);
  return null;
}

function renderReports(reports: readonly SimulationReport[]): string {
  const secs = (value: number): string => value.toFixed(value < 100 ? 1 : 0);
  const percent = (value: number): string => `${(value * 100).toFixed(1)}%`;
  const columns = ['requests', 'refused', 'ttft p50', 'ttft p99', 'waited', 'longest'];
  const more = ['idle swaps', 'due swaps', 'evictions', 'loads', 'answering', 'loading'];
  return renderTable(
    [{ title: 'strategy' }, ...[...columns, ...more].map((title) => ({ title, align: 'right' as const }))],
    reports.map((report) => [
      report.strategy,
      String(report.requests),
      String(report.refused),
      `${secs(report.ttft_p50)} s`,
      `${secs(report.ttft_p99)} s`,
      `${secs(report.waited)} s`,
      `${secs(report.waited_longest)} s`,
      String(report.swaps_idle),
      String(report.swaps_due),
      String(report.evictions),
      String(report.loads),
      percent(report.answering),
      percent(report.loading),
    ]),
  );
}
