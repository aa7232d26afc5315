/** What the handler of inference requests works with. */
import type { Clock } from 'cortex-core/daemon/clock';
import type { Exchange } from 'cortex-core/daemon/http-server';
import type { Log } from 'cortex-core/daemon/log';
import type { Dialect, InferenceRequest } from '../dialects/dialect.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Ledger } from '../quota/ledger.ts';
import type { Principal, Principals } from '../quota/principals.ts';
import type { AnswerSink } from './answer-sink.ts';
import type { Attachments } from './attachments.ts';
import type { GatewayMetrics } from './metrics.ts';
import type { RetryBudget } from './retry-budget.ts';
import type { StreamChecks } from './stream-checks.ts';

export interface InferenceDeps {
  readonly fleet: Fleet;
  readonly clock: Clock;
  readonly log: Log;
  readonly principals: Principals;
  readonly ledger: Ledger;
  readonly metrics: GatewayMetrics;
  readonly idleMs: number;
  readonly coldLoadWaitMs: number;
  readonly keepAliveMs: number;
  readonly failover: FailoverSettings;
  readonly attachments: Attachments;
  readonly prefixHygiene: boolean;
  readonly streamChecks: StreamChecks;
}

export interface FailoverSettings {
  readonly budget: RetryBudget;
  readonly attemptsMax: number;
  readonly giveUpMs: number;
  /** Streams that broke go on at another node. */
  readonly continues: boolean;
}

/** One request as its call sees it. */
export interface CallParts {
  readonly exchange: Exchange;
  readonly sink: AnswerSink;
  readonly dialect: Dialect;
  readonly request: InferenceRequest;
  readonly principal: Principal;
}
