/** `cortex doctor`: what this machine has, which libllama would run on it, and what to do about the rest. */
import { systemClock } from 'cortex-core/daemon/clock';
import type { MachineReport } from 'neuron/machine';
import { CliError } from './cli-error.ts';
import { loadNeuronConfig } from './load-files.ts';
import type { Style } from './style.ts';
import type { Terminal } from './terminal.ts';
import { formatMb, toPrintable } from './text.ts';
import { renderFact } from './up-text.ts';
import { formatVersion, readVersion } from './version.ts';

export interface DoctorOptions {
  readonly neuronConfig?: string;
  readonly json?: boolean;
}

/** Fails when models could not run, or not on the GPUs that are there and meant to be used. */
export async function runDoctor(terminal: Terminal, options: DoctorOptions): Promise<void> {
  const { env, stdout, style } = terminal;
  const path = options.neuronConfig ?? (env.NEURON_CONFIG || undefined);
  const config = loadNeuronConfig({ path, env });
  const { examineMachine } = await import('neuron/machine');
  const report = await examineMachine(config, { env, clock: systemClock });
  if (options.json === true) stdout.write(`${JSON.stringify(report)}\n`);
  else for (const line of renderReport(report, style)) stdout.write(`${line}\n`);
  // What is wrong has been said.
  if (report.problem !== null) throw new CliError('');
}

function renderReport(report: MachineReport, style: Style): readonly string[] {
  const { devices, library, driverVersion, cudaVersion, problem, advice } = report;
  const driver = `${driverVersion ?? 'unknown'}, CUDA ${cudaVersion ?? 'unknown'}`;
  const found =
    library === null
      ? style.red('none')
      : `${library.packageName ?? library.directory} (${library.variant ?? 'own build'})`;
  return [
    style.bold(formatVersion('cortex', readVersion())),
    renderFact('libllama', toPrintable(found), style),
    ...(driverVersion === null ? [] : [renderFact('driver', toPrintable(driver), style)]),
    ...devices.map(({ index, kind, name, vram_total_mb: mb }) =>
      renderFact(`device ${index}`, `${kind}: ${toPrintable(name)}, ${formatMb(mb)}`, style),
    ),
    ...(problem === null ? [] : [renderFact('problem', style.red(toPrintable(problem)), style)]),
    ...advice.map((line) => renderFact('advice', style.yellow(toPrintable(line)), style)),
    ...(problem === null && advice.length === 0
      ? [renderFact('ok', style.green('nothing to do'), style)]
      : []),
  ];
}
