/** CORS for browser clients. `*` does not cover Authorization, so the headers are named. */
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
].join(', ');

export function allowBrowsers(exchange: Exchange): void {
  exchange.response.setHeader('access-control-allow-origin', '*');
  exchange.response.setHeader(
    'access-control-expose-headers',
    'request-id, x-request-id, retry-after, x-cortex-route',
  );
}

export function answerPreflight(exchange: Exchange): void {
  exchange.response.writeHead(204, {
    'access-control-allow-methods': 'GET,POST,DELETE,OPTIONS,HEAD',
    'access-control-allow-headers': allowedHeaders,
    'access-control-max-age': '600',
  });
  exchange.response.end();
}
