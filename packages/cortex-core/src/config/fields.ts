/** Field types that the configuration files share. Units are in the key: `_secs`, `_mb`. */
import { z } from 'zod';

export const nonEmpty = () => z.string().min(1);
export const positiveInt = () => z.int().min(1);
export const nonNegativeInt = () => z.int().min(0);

/** A timer of Node fires at once when it is set to more than 2^31 - 1 ms. */
const longestSeconds = 2_147_483;
export const seconds = () => z.number().min(0).max(longestSeconds);
export const positiveSeconds = () => z.number().positive().max(longestSeconds);

/** `host:port` or `[v6]:port`; port 0 lets the system choose. */
export const listenAddress = () =>
  z.string().refine((text) => parseListen(text) !== null, {
    error: 'must be host:port, for example "0.0.0.0:31313" or "[::]:31313"',
  });

/** An http or https URL; a trailing slash is dropped, so that paths can be appended. */
export const httpUrl = () =>
  z
    .url({ protocol: /^https?$/, error: 'must be a URL such as "http://10.0.0.5:13131"' })
    .overwrite((url) => url.replace(/\/+$/, ''));

export const logSection = () =>
  z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error', 'silent'])
        .default('info')
        .describe('Lowest level that is written. One JSON object a line, to stderr.'),
    })
    .prefault({})
    .describe('Logging');

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Takes `host:port` apart; the brackets of an IPv6 host are dropped. Null when the text is not one. */
export function parseListen(text: string): ListenAddress | null {
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^\s:[\]/]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65535 ? null : { host: (match[1] ?? match[2]) as string, port };
}

/** A check for arrays: no two elements share what `keyOf` returns. `what` names it in the message. */
export function unique<T>(what: string, field: string | null, keyOf: (item: T) => string, shown = true) {
  return (items: readonly T[], context: z.core.$RefinementCtx): void => {
    const seen = new Map<string, number>();
    items.forEach((item, index) => {
      const key = keyOf(item);
      const first = seen.get(key);
      if (first === undefined) {
        seen.set(key, index);
        return;
      }
      const name = shown ? ` "${key}"` : '';
      const path = field === null ? [index] : [index, field];
      context.addIssue({
        code: 'custom',
        path,
        message: `${what}${name} is already used by entry ${first + 1}`,
      });
    });
  };
}
