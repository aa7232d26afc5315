/** Which headers cross the gateway, in each direction. */
import type { IncomingHttpHeaders } from 'node:http';
import type { Principal } from '../quota/principals.ts';
import { anonymous } from '../quota/principals.ts';

/** RFC 9110 7.6.1 and what belongs to one connection or to the client's relation with us. */
const notUpstream = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'host',
  'expect',
  'content-length',
  'content-encoding',
  'content-type',
  'accept-encoding',
  'authorization',
  'x-api-key',
  'api-key',
  'cookie',
  'origin',
  'referer',
  'forwarded',
  'x-request-id',
]);
const notUpstreamPrefixes = ['x-cortex-', 'x-helexa-', 'x-stainless-', 'anthropic-', 'x-forwarded-', 'sec-'];

const notDownstream = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'server',
  'date',
  'set-cookie',
  'x-request-id',
  'request-id',
]);
const notDownstreamPrefixes = ['access-control-', 'x-cortex-'];

/** Headers for the neuron. `client` null: the body is a translation, the client's headers do not fit it. */
export function toUpstreamHeaders(
  client: IncomingHttpHeaders | null,
  principal: Principal,
  requestId: string,
): Record<string, string> {
  const headers: Record<string, string> = {};
  const named = connectionNamed(client?.connection);
  for (const [name, value] of Object.entries(client ?? {})) {
    if (value === undefined || notUpstream.has(name) || named.has(name)) continue;
    if (notUpstreamPrefixes.some((prefix) => name.startsWith(prefix))) continue;
    headers[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  headers['content-type'] = 'application/json';
  headers['x-request-id'] = requestId;
  if (principal !== anonymous) {
    headers['x-cortex-account-id'] = principal.accountId;
    headers['x-cortex-key-id'] = principal.keyId;
  }
  return headers;
}

/** What of a Messages request's headers is part of its meaning, for a provider that gets it as it came. */
export function nativeHeadersOf(client: IncomingHttpHeaders): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of ['anthropic-version', 'anthropic-beta']) {
    const value = client[name];
    if (value !== undefined) headers[name] = Array.isArray(value) ? value.join(',') : value;
  }
  return headers;
}

/** Headers of a neuron's answer that the client gets. */
export function toClientHeaders(
  upstream: Readonly<Record<string, string | string[] | undefined>>,
): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  const named = connectionNamed(headerOf(upstream, 'connection') ?? undefined);
  for (const [name, value] of Object.entries(upstream)) {
    if (value === undefined || notDownstream.has(name) || named.has(name)) continue;
    if (notDownstreamPrefixes.some((prefix) => name.startsWith(prefix))) continue;
    headers[name] = value;
  }
  return headers;
}

export function headerOf(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  name: string,
): string | null {
  const value = headers[name];
  return value === undefined ? null : Array.isArray(value) ? (value[0] ?? null) : value;
}

/** `x-cortex-route`: where the request went and why, in characters a header may carry. */
export function routeHeader(node: string | null, why: string): string {
  const text = `${node === null ? 'none' : `node=${node}`}; ${why}`;
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 400);
}

function connectionNamed(value: string | undefined): ReadonlySet<string> {
  return new Set((value ?? '').split(',').map((name) => name.trim().toLowerCase()));
}
