import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFleet, readHealth, readModels, readProviders } from './fleet-answer.ts';
import { renderModels, renderStatus } from './fleet-text.ts';
import { createStyle } from './style.ts';

const style = createStyle(false);

test('renderModels() shows state, context and place of each model', () => {
  const models = readModels({
    data: [
      {
        id: 'cortex-tiny',
        loaded: true,
        limit: { context: 4096, output: 512 },
        locations: [{ node: 'beast', status: 'loaded' }],
      },
      { id: 'qwen3-8b', loaded: false, feasible_on: ['beast', 'benjy'], locations: [] },
    ],
  });
  assert.equal(
    renderModels(models, style),
    'MODEL        STATE     CONTEXT  WHERE\n' +
      'cortex-tiny  loaded       4096  beast (loaded)\n' +
      'qwen3-8b     loadable        -  beast, benjy\n',
  );
});

test('what a provider has is shown as hosted, and the provider with its state', () => {
  const hosted = { node: 'far', status: 'hosted' };
  const models = readModels({
    data: [
      { id: 'a', loaded: true, locations: [hosted] },
      { id: 'b', loaded: false, locations: [hosted] },
      { id: 'c', loaded: true, locations: [{ node: 'beast', status: 'loaded' }, hosted] },
    ],
  });
  assert.deepEqual(
    renderModels(models, style)
      .split('\n')
      .map((line) => line.split(/ {2,}/).slice(0, 2).join(' ')),
    ['MODEL STATE', 'a hosted', 'b out of service', 'c loaded', ''],
  );
  const providers = readProviders({
    providers: [
      { name: 'far', kind: 'openai', reason: null, in_flight: 2, models: [{ id: 'a' }, { id: 'c' }] },
      { name: 'near', kind: 'openai', reason: 'has no key', in_flight: 0, models: [{ id: 'b' }] },
    ],
  });
  const health = readHealth({ status: 'ok' });
  const text = renderStatus({ endpoint: 'http://x', health, nodes: [], providers, columns: 80 }, style);
  assert.match(text, /far +in service +2 +a, c\nnear +has no key +0 +b\n/);
});

test('renderModels() says what to do when there are none', () => {
  assert.match(renderModels([], style), /no models: put \.gguf files/);
});

test('renderStatus() without nodes names the key that lists them', () => {
  const facts = { endpoint: 'http://x', health: readHealth({ status: 'degraded' }), nodes: [], columns: 80 };
  assert.match(
    renderStatus(facts, style),
    /^degraded {2}http:\/\/x {2}0 of 0 nodes healthy\n[\s\S]*\[\[neurons\]\]/,
  );
});

test('renderStatus() says what a node does not serve, and why', () => {
  const nodes = readFleet({
    nodes: [
      { name: 'a', healthy: true, state: 'draining', in_flight: 2, loads: 1, models: [] },
      { name: 'b', healthy: true, state: 'resting', reason: 'failed 5 requests in a row and rests' },
      {
        name: 'c',
        healthy: true,
        state: 'in_service',
        warnings: ['the neuron speaks wire version 9'],
        models: [{ id: 'm', status: 'loaded', unservable: '1405 MiB free' }],
      },
      { name: 'd', healthy: false, state: 'drained', version: '0.1.0' },
      { name: 'e', healthy: true, state: 'in_service', version: '0.2.0' },
    ],
  });
  const text = renderStatus({ endpoint: 'http://x', health: readHealth({}), nodes, columns: 80 }, style);
  assert.match(text, /^a +draining, 3 running/m);
  assert.match(text, /^b +resting/m);
  assert.match(text, /^c +healthy .*m \(loaded, cannot serve\)/m);
  assert.match(text, /^d +unhealthy/m);
  assert.match(text, /^b failed 5 requests in a row and rests$/m);
  assert.match(text, /^c: m cannot serve: 1405 MiB free$/m);
  assert.match(text, /^neurons of different versions: d 0\.1\.0, e 0\.2\.0$/m);
  assert.match(text, /^c: the neuron speaks wire version 9$/m);
});

test('readers of answers take what they do not know', () => {
  for (const strange of [
    null,
    undefined,
    3,
    'x',
    [],
    { data: 1, nodes: { healthy: 'x' } },
    { data: [null], nodes: [null] },
  ]) {
    readModels(strange);
    readHealth(strange);
    readFleet(strange);
  }
});
