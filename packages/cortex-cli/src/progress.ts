/** Progress of a load: one line that rewrites itself on a terminal, a line per quarter elsewhere. */
import type { LoadProgress } from 'cortex-core/wire/neuron';
import { formatDuration, formatMb, toPrintable } from './text.ts';

const CLEAR_LINE = '\r\x1b[K';
const BAR_CELLS_MAX = 30;

/** `loading cortex-tiny [#####-----]  50%  eta 3.0 s`, at most `columns` wide. */
export function renderProgressBar(progress: LoadProgress, columns: number): string {
  const percent = clampPercent(progress.percent);
  const head = `${progress.phase} ${toPrintable(progress.model_id)} `;
  const tail = ` ${String(Math.floor(percent)).padStart(3)}%${describeRest(progress)}`;
  const cells = Math.min(BAR_CELLS_MAX, columns - head.length - tail.length - 3);
  if (cells < 4) return `${head.trimEnd()}${tail}`.slice(0, Math.max(0, columns - 1));
  const filled = Math.floor((percent / 100) * cells);
  return `${head}[${'#'.repeat(filled)}${'-'.repeat(cells - filled)}]${tail}`;
}

export interface ProgressOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export class ProgressDisplay {
  readonly #output: ProgressOutput;
  readonly #indent: string;
  #shown = '';
  /** The last quarter that a plain line told, per model and phase. */
  readonly #told = new Map<string, number>();

  constructor(output: ProgressOutput, indent = '') {
    this.#output = output;
    this.#indent = indent;
  }

  show(progress: LoadProgress): void {
    if (this.#output.isTTY === true) {
      this.#rewrite(progress);
      return;
    }
    const key = `${progress.model_id} ${progress.phase}`;
    const quarter = Math.floor(clampPercent(progress.percent) / 25);
    if ((this.#told.get(key) ?? -1) >= quarter) return;
    this.#told.set(key, quarter);
    const line = `${progress.phase} ${toPrintable(progress.model_id)} ${quarter * 25}%`;
    this.#output.write(`${this.#indent}${line}\n`);
  }

  /** Removes the bar, so that an ordinary line can follow. */
  clear(): void {
    if (this.#shown === '') return;
    this.#output.write(CLEAR_LINE);
    this.#shown = '';
  }

  #rewrite(progress: LoadProgress): void {
    const columns = (this.#output.columns ?? 80) - this.#indent.length;
    const text = this.#indent + renderProgressBar(progress, columns);
    if (text === this.#shown) return;
    this.#output.write(CLEAR_LINE + text);
    this.#shown = text;
  }
}

function describeRest(progress: LoadProgress): string {
  const parts: string[] = [];
  if (progress.bytes_total > 0 && progress.phase === 'fetching') {
    parts.push(`${formatMb(progress.bytes_done / 2 ** 20)} of ${formatMb(progress.bytes_total / 2 ** 20)}`);
  }
  if (progress.eta_secs !== null) parts.push(`eta ${formatDuration(progress.eta_secs * 1000)}`);
  return parts.map((part) => `  ${part}`).join('');
}

function clampPercent(percent: number): number {
  return Number.isFinite(percent) ? Math.min(100, Math.max(0, percent)) : 0;
}
