/** `neuron bench MODEL`: how fast one model is here, as a table or as JSON. */
import { healthSchema } from 'cortex-core/wire/neuron';
import { BenchMeasure, type BenchRun } from './bench-measure.ts';
import {
  attachNeuron,
  type BenchOptions,
  type BenchTarget,
  reuseFactor,
  startNeuron,
} from './bench-neuron.ts';
import { type BenchReport, renderBench } from './bench-text.ts';
import { CliError } from './cli-error.ts';
import type { Terminal } from './terminal.ts';
import { plural } from './text.ts';

export async function runBench(
  terminal: Terminal,
  model: string,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<void> {
  const target =
    options.url === undefined
      ? await startNeuron(terminal, model, options, signal)
      : await attachNeuron(model, { ...options, url: options.url }, signal);
  let report: BenchReport;
  try {
    await checkRoom(target, options, signal);
    report = await Promise.race([measure(terminal, target, options, signal), target.died]);
  } finally {
    await target.close();
  }
  const text = options.json === true ? JSON.stringify(report, null, 2) : renderBench(report, terminal.style);
  terminal.stdout.write(`${text}\n`);
}

/** What a neuron would refuse in the middle is refused before. */
async function checkRoom(target: BenchTarget, options: BenchOptions, signal: AbortSignal): Promise<void> {
  const { prompt, tokens, streams } = options;
  const { context } = target.conditions;
  const needed = Math.max(reuseFactor * prompt + 4, prompt + tokens);
  if (context !== null && needed >= context) {
    const sizes = `a prompt of ${reuseFactor * prompt} tokens, or of ${prompt} with an answer of ${tokens}`;
    throw new CliError(
      `${sizes}, needs more than the context of ${context}; give smaller --prompt and --tokens`,
    );
  }
  const { models } = healthSchema.parse(await target.client.get('/health', signal));
  const load = models.find(({ id }) => id === target.model);
  const places = (load?.max_in_flight ?? 0) + (load?.max_queue_depth ?? 0);
  const most = Math.max(...streams);
  if (load === undefined || most <= places) return;
  const asked = plural(most, 'stream');
  throw new CliError(`${asked} is more than the ${places} that run and wait there; see --streams`);
}

async function measure(
  terminal: Terminal,
  target: BenchTarget,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<BenchReport> {
  const { streams, tokens, prompt, rounds } = options;
  const show = (text: string): void => {
    if (terminal.stderr.isTTY === true) terminal.stderr.write(`\r\x1b[K${text}`);
  };
  const bench = new BenchMeasure(target.client, target.model, signal);
  try {
    if (terminal.stderr.isTTY !== true) terminal.stderr.write(`measuring ${target.model}\n`);
    show('warming up ...');
    await bench.warmUp(options);
    const runs: BenchRun[] = [];
    for (const count of streams) {
      const onRound = (round: number): void =>
        show(`${plural(count, 'stream')}, round ${round + 1} of ${rounds} ...`);
      runs.push(await bench.run(count, options, onRound));
    }
    show('the same prompt again ...');
    const prefix_reuse = await bench.reuse(reuseFactor * prompt, rounds);
    const conditions = { ...target.conditions, prompt, tokens, rounds };
    return { model: target.model, conditions, runs, prefix_reuse };
  } finally {
    show('');
  }
}
