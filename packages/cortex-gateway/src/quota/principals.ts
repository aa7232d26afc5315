/** API key -> principal. Keys are compared by digest, so that a lookup's time says nothing about them. */
import { createHash } from 'node:crypto';
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { AppError } from 'cortex-core/wire/errors';

export interface Principal {
  readonly accountId: string;
  readonly keyId: string;
  /** Tokens it may use; null = no cap. */
  readonly hardCap: number | null;
  /** Length of the rolling window; null = the cap is spent once. */
  readonly windowSecs: number | null;
  /** Among requests that wait; a higher one goes first. */
  readonly priority: number;
  /** The highest that a request of it may ask for. */
  readonly priorityMax: number;
}

/** Who has no key, or one we do not know, where keys are not required. */
export const anonymous: Principal = {
  accountId: 'anonymous',
  keyId: 'anonymous',
  hardCap: null,
  windowSecs: null,
  priority: 0,
  priorityMax: 0,
};

export class Principals {
  #byDigest = new Map<string, Principal>();
  #required = false;

  constructor(entitlements: CortexConfig['entitlements']) {
    this.replace(entitlements);
  }

  /** Counts from the next request on; those under way keep who they are. */
  replace(entitlements: CortexConfig['entitlements']): void {
    this.#required = entitlements.require_auth;
    this.#byDigest = new Map();
    for (const entry of entitlements.keys) {
      this.#byDigest.set(digestOf(entry.key), {
        accountId: entry.account_id,
        keyId: entry.key_id,
        hardCap: entry.hard_cap ?? null,
        windowSecs: entry.window.kind === 'rolling' ? entry.window.seconds : null,
        priority: entry.priority,
        priorityMax: entry.priority_max,
      });
    }
  }

  /** Either header may carry the key. Throws `invalid_api_key` where a known one is required. */
  of(authorization: string | null, apiKey: string | null): Principal {
    for (const key of keysIn(authorization, apiKey)) {
      const principal = this.#byDigest.get(digestOf(key));
      if (principal !== undefined) return principal;
    }
    if (!this.#required) return anonymous;
    const message =
      'the API key is missing or unknown; send it as "Authorization: Bearer KEY" or "x-api-key: KEY"';
    throw new AppError('invalid_api_key', message);
  }
}

/** Keys that a request carries. */
export function keysIn(authorization: string | null, apiKey: string | null): readonly string[] {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(authorization ?? '')?.[1];
  return [bearer, apiKey?.trim()].filter((key): key is string => key !== undefined && key !== '');
}

export function digestOf(key: string): string {
  return createHash('sha256').update(key).digest('base64');
}
