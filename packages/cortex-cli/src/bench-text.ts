/** What `neuron bench` found, as a table of at most 80 columns. */
import type { BenchReuse, BenchRun, BenchSize } from './bench-measure.ts';
import type { BenchConditions } from './bench-neuron.ts';
import type { Style } from './style.ts';
import { renderTable } from './table.ts';
import { formatDuration, formatMb, plural, toPrintable } from './text.ts';

/** The JSON of `neuron bench --json`; docs/cli.md describes it. */
export interface BenchReport {
  readonly model: string;
  readonly conditions: BenchConditions & Omit<BenchSize, 'streams'>;
  readonly runs: readonly BenchRun[];
  readonly prefix_reuse: BenchReuse;
}

const columnsMax = 80;
const labelWidth = 9;

export function renderBench(report: BenchReport, style: Style): string {
  const { conditions, runs, prefix_reuse: reuse } = report;
  const facts = toFacts(report).map(([label, text]) => {
    const room = columnsMax - labelWidth - 1;
    const shown = text.length <= room ? text : `${text.slice(0, room - 3)}...`;
    return `${style.dim(label.padEnd(labelWidth))} ${shown}`;
  });
  const table = renderTable(
    [
      { title: 'STREAMS', align: 'right' },
      { title: 'PROMPT tok/s', align: 'right' },
      { title: 'GENERATION tok/s', align: 'right' },
      { title: 'PER STREAM', align: 'right' },
      { title: 'FIRST TOKEN', align: 'right' },
      { title: 'SLOWEST', align: 'right' },
    ],
    runs.map((run) => [
      `${run.streams}${run.streams > conditions.slots ? '*' : ''}`,
      formatRate(run.prompt_tokens_per_second),
      formatRate(run.generation_tokens_per_second),
      formatRate(run.generation_tokens_per_second / run.streams),
      formatDuration(run.first_token_ms),
      formatDuration(run.first_token_ms_max),
    ]),
  );
  const waited = runs.some(({ streams }) => streams > conditions.slots);
  const note = waited ? [`* more streams than slots: ${conditions.slots} run at once, the rest waits`] : [];
  const { first, second } = reuse.first_token_ms;
  const again =
    `Prompt repeated: ${reuse.cached_tokens} of ${reuse.prompt_tokens} tokens reused, ` +
    `first token ${formatDuration(first)} -> ${formatDuration(second)}`;
  return [...facts, '', table, ...note, '', again].join('\n');
}

function toFacts({ model, conditions }: BenchReport): readonly (readonly [string, string])[] {
  const { file, file_bytes, context, slots, threads, cpu, cores, memory_mb, load_average } = conditions;
  const size = file_bytes === null ? null : formatMb(file_bytes / 2 ** 20);
  const machine = [
    cpu ?? conditions.devices.join(', '),
    cores === null ? null : plural(cores, 'core'),
    memory_mb === null ? null : formatMb(memory_mb),
    load_average === null ? null : `load ${load_average}`,
  ];
  const library = conditions.libllama_package?.replace(/^@[\w-]+\//, '') ?? null;
  const engine = [
    `libllama ${conditions.libllama_version ?? 'unknown'}${library === null ? '' : ` (${library})`}`,
    threads === null ? null : plural(threads, 'thread'),
    `neuron ${conditions.neuron_version}`,
  ];
  const loaded = [file === `${model}.gguf` ? null : file, size, `context ${context}`, plural(slots, 'slot')];
  const { prompt, tokens, rounds } = conditions;
  const measured = [`${prompt} prompt tokens`, `${tokens} generated`, `median of ${plural(rounds, 'round')}`];
  return [
    ['model', join([model, ...loaded])],
    ['machine', join(conditions.url === null ? machine : [conditions.url, ...machine])],
    ['engine', join(engine)],
    ['measured', join(measured)],
  ];
}

function join(parts: readonly (string | null)[]): string {
  return toPrintable(parts.filter((part) => part !== null && part !== '').join(', '));
}

/** `3,210`, `95.4`. */
function formatRate(rate: number): string {
  if (rate < 99.95) return rate.toFixed(1);
  return String(Math.round(rate)).replace(/\B(?=(\d{3})+$)/g, ',');
}
