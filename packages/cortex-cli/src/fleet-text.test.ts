import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFleet, readHealth, readModels } from './fleet-answer.ts';
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
