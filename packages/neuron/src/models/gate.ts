/** What a model needs of its admission control; the composition brings the real one. */
import type { AppError } from 'cortex-core/wire/errors';
import type { ModelSpec } from 'cortex-core/wire/neuron';

export interface GateLimits {
  readonly maxInFlight: number;
  readonly maxQueueDepth: number;
  readonly maxWaitMs: number;
  readonly maxPerPrincipal: number;
}

export interface Gate {
  readonly limits: GateLimits;
  setLimits(limits: GateLimits): void;
  readonly counters: {
    readonly inFlight: number;
    readonly queueDepth: number;
    readonly rejectedQueueFull: number;
    readonly rejectedTimeout: number;
    readonly rejectedPerPrincipal: number;
    /** When a request ended last, by the monotonic clock; null = none has. */
    readonly endedMs: number | null;
  };
  acquire(
    principal: string | null,
    signal: AbortSignal,
  ): Promise<{ readonly queueMs: number; release(): void }>;
  /** Refuses whoever waits or comes with `reason()`, by default that the neuron stops. */
  close(reason?: () => AppError): void;
  /** Resolves when nothing runs any more. */
  idle(signal: AbortSignal): Promise<void>;
}

export type CreateGate = (spec: ModelSpec) => Gate;
