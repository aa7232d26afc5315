/**
 * CORS for browser clients: any origin, any header, no cookies. Headers are named, because `*` does not cover
 * Authorization; what a preflight asks for is allowed too, so that SDKs may add headers of their own. A page
 * on the public web that asks for an address in a private network is let in like every other
 * (`Access-Control-Allow-Private-Network`): a key, where one is set, is what keeps strangers out.
 */
import type { Exchange } from 'cortex-core/daemon/http-server';

const stainless = ['arch', 'async', 'custom-poll-interval', 'helper-method', 'lang', 'os', 'package-version'];
const moreStainless = ['poll-helper', 'read-timeout', 'retry-count', 'runtime', 'runtime-version', 'timeout'];
const allowedHeaders = [
  'authorization',
  'content-type',
  'x-api-key',
  'anthropic-version',
  'anthropic-beta',
  'anthropic-dangerous-direct-browser-access',
  'openai-beta',
  'openai-organization',
  'openai-project',
  'x-request-id',
  'x-session-id',
  ...[...stainless, ...moreStainless].map((name) => `x-stainless-${name}`),
];
const askedMax = 64;
const tokenPattern = /^[\w!#$%&'*+.^`|~-]{1,100}$/;

export function allowBrowsers(exchange: Exchange): void {
  // the admin API is for no page
  if (exchange.path.startsWith('/admin')) return;
  exchange.response.setHeader('access-control-allow-origin', '*');
  exchange.response.setHeader(
    'access-control-expose-headers',
    'request-id, x-request-id, retry-after, x-cortex-route',
  );
}

export function answerPreflight(exchange: Exchange): void {
  const asked = (exchange.header('access-control-request-headers') ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => tokenPattern.test(name))
    .slice(0, askedMax);
  const isPrivate = exchange.header('access-control-request-private-network') === 'true';
  exchange.response.writeHead(204, {
    'access-control-allow-methods': 'GET,POST,DELETE,OPTIONS,HEAD',
    'access-control-allow-headers': [...new Set([...allowedHeaders, ...asked])].join(', '),
    ...(isPrivate ? { 'access-control-allow-private-network': 'true' } : {}),
    'access-control-max-age': '600',
    vary: 'access-control-request-headers, access-control-request-private-network',
  });
  exchange.response.end();
}
