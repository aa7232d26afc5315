/**
 * Budgets: reserve an estimate before anything is placed, settle with what was used. A rolling window is a
 * window: use is kept in sixty slices and leaves it slice by slice. In memory; a restart is a fresh budget.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import { AppError } from 'cortex-core/wire/errors';
import type { Principal } from './principals.ts';

/** What the ledger needs to know of a principal. */
type Budget = Omit<Principal, 'priority' | 'priorityMax'>;

export interface Reservation {
  /** Books what was really used and frees the rest. Only the first call counts. */
  settle(tokens: number): void;
}

interface Account {
  reserved: number;
  used: number;
  slices: { readonly startMs: number; tokens: number }[];
}

const slicesPerWindow = 60;

export class Ledger {
  readonly #clock: Clock;
  readonly #accounts = new Map<string, Account>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Throws `insufficient_quota` or `rate_limit_exceeded` when the estimate does not fit the cap. */
  reserve(principal: Budget, tokens: number): Reservation {
    if (principal.hardCap === null) return { settle: () => {} };
    const account = this.#accountOf(principal);
    this.#expire(account, principal);
    if (account.used + account.reserved + tokens > principal.hardCap) {
      throw this.#refusal(principal, account, tokens);
    }
    account.reserved += tokens;
    let open = true;
    return {
      settle: (used) => {
        if (!open) return;
        open = false;
        account.reserved -= tokens;
        this.#book(account, principal, used);
      },
    };
  }

  #accountOf(principal: Budget): Account {
    const existing = this.#accounts.get(principal.keyId);
    if (existing !== undefined) return existing;
    const account: Account = { reserved: 0, used: 0, slices: [] };
    this.#accounts.set(principal.keyId, account);
    return account;
  }

  #book(account: Account, principal: Budget, tokens: number): void {
    account.used += tokens;
    if (principal.windowSecs === null) return;
    const sliceMs = (principal.windowSecs * 1000) / slicesPerWindow;
    const startMs = Math.floor(this.#clock.monotonicMs() / sliceMs) * sliceMs;
    const last = account.slices.at(-1);
    if (last?.startMs === startMs) last.tokens += tokens;
    else account.slices.push({ startMs, tokens });
  }

  #expire(account: Account, principal: Budget): void {
    if (principal.windowSecs === null) return;
    const oldestMs = this.#clock.monotonicMs() - principal.windowSecs * 1000;
    while (account.slices[0] !== undefined && account.slices[0].startMs <= oldestMs) {
      account.used -= account.slices.shift()?.tokens ?? 0;
    }
  }

  #refusal(principal: Budget, account: Account, tokens: number): AppError {
    const { keyId, hardCap, windowSecs } = principal;
    const cap = hardCap ?? Number.POSITIVE_INFINITY;
    const left = Math.max(0, cap - account.used - account.reserved);
    const wish = `this request may take ${tokens} tokens`;
    if (windowSecs === null) {
      const rest = `${left} of the ${cap} of key "${keyId}" are left`;
      const message = `${wish}, ${rest}; set a smaller max_tokens, or ask for more`;
      return new AppError('insufficient_quota', message);
    }
    // no wait makes room for it, so nobody is told to come back
    if (tokens > cap) {
      const message = `${wish}, key "${keyId}" has ${cap} per ${windowSecs} s; set a smaller max_tokens`;
      return new AppError('insufficient_quota', message);
    }
    const oldest = account.slices[0]?.startMs ?? this.#clock.monotonicMs();
    const waitSecs = Math.ceil((oldest + windowSecs * 1000 - this.#clock.monotonicMs()) / 1000);
    const rest = `${left} of the ${cap} per ${windowSecs} s of key "${keyId}" are left`;
    const message = `${wish}, ${rest}; try again later`;
    return new AppError('rate_limit_exceeded', message, { retryAfterSecs: Math.max(1, waitSecs) });
  }
}
