import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { createStyle } from './style.ts';
import { renderCurl, renderReady, toConnectUrl } from './up-text.ts';

test('renderCurl() survives a shell, whatever the model is called', () => {
  const line = renderCurl('http://[::1]:31313', `it's "$(x)" model`, true);
  const words = execFileSync('sh', ['-c', `${line.replace(/^curl/, 'printf "%s\\n"')}`], {
    encoding: 'utf8',
    env: { CORTEX_API_KEY: 'k' },
  })
    .trimEnd()
    .split('\n');
  assert.deepEqual(words.slice(0, 5), [
    '-N',
    'http://[::1]:31313/v1/chat/completions',
    '-H',
    'authorization: Bearer k',
    '-d',
  ]);
  assert.equal(JSON.parse(words[5] ?? '').model, `it's "$(x)" model`);
});

test('toConnectUrl() replaces a wildcard by an address that answers', () => {
  assert.equal(toConnectUrl('http://0.0.0.0:1'), 'http://127.0.0.1:1');
  assert.equal(toConnectUrl('http://[::]:1'), 'http://[::1]:1');
  assert.equal(toConnectUrl('http://10.0.0.5:1'), 'http://10.0.0.5:1');
});

test('renderReady() without a model asks for one instead of showing a line that fails', () => {
  const facts = {
    url: 'http://x',
    metricsUrl: null,
    neuronUrl: 'http://n',
    model: null,
    needsKey: false,
    logDir: '/l',
  };
  const text = renderReady(facts, createStyle(false)).join('\n');
  assert.match(text, /--model/);
  assert.doesNotMatch(text, /chat\/completions/);
});
