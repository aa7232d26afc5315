/** What a simulation showed, in numbers. */
import type { SimulationResult } from './simulation.ts';

export interface SimulationReport {
  readonly strategy: string;
  readonly requests: number;
  readonly refused: number;
  /** To the first token, seconds. */
  readonly ttft_p50: number;
  readonly ttft_p99: number;
  /** Seconds that all requests together waited for a model to take them, and the longest one. */
  readonly waited: number;
  readonly waited_longest: number;
  readonly swaps_idle: number;
  readonly swaps_due: number;
  readonly evictions: number;
  readonly loads: number;
  /** Share of the machines' time in which they answered, and in which they loaded. */
  readonly answering: number;
  readonly loading: number;
}

export function toReport(strategy: string, result: SimulationResult): SimulationReport {
  const ttft = result.outcomes.map((outcome) => outcome.firstTokenMs / 1000).sort((a, b) => a - b);
  const waits = result.outcomes.map((outcome) => outcome.waitMs / 1000);
  return {
    strategy,
    requests: result.outcomes.length + result.rejected.length,
    refused: result.rejected.length,
    ttft_p50: percentile(ttft, 0.5),
    ttft_p99: percentile(ttft, 0.99),
    waited: waits.reduce((sum, secs) => sum + secs, 0),
    waited_longest: waits.reduce((most, secs) => Math.max(most, secs), 0),
    swaps_idle: result.swaps.idle,
    swaps_due: result.swaps.due,
    evictions: result.evictions,
    loads: result.loads,
    answering: result.busy,
    loading: result.loading,
  };
}

/** The nearest rank; 0 of nothing. */
function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
}
