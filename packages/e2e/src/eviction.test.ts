import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { postJson, type Stack, type StackOptions, startStack, tinyFile } from './stack.ts';

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'cortex-eviction-'));
  for (const name of ['one', 'two', 'three']) copyFileSync(tinyFile, join(dir, `${name}.gguf`));
});
after(() => rmSync(dir, { recursive: true, force: true }));

interface Listed {
  readonly id: string;
  readonly status: string;
  readonly vram_estimate_mb: number;
}

async function models(stack: Stack): Promise<Listed[]> {
  return (await (await fetch(`${stack.neuron.url}/models`)).json()) as Listed[];
}

async function withStack<T>(options: Partial<StackOptions>, use: (stack: Stack) => Promise<T>): Promise<T> {
  const stack = await startStack({ transport: 'thread', dirs: [dir], preload: [], ...options });
  try {
    return await use(stack);
  } finally {
    await stack.close();
  }
}

async function ask(stack: Stack, model: string): Promise<void> {
  const response = await postJson(`${stack.baseUrl}/chat/completions`, {
    model,
    temperature: 0,
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.match(text, /Paris/);
}

async function evictions(stack: Stack): Promise<number> {
  const metrics = await (await fetch(`http://127.0.0.1:${stack.gateway.metricsPort}/metrics`)).text();
  const counts = [...metrics.matchAll(/^cortex_evictions_total\{.*\} (\d+)$/gm)];
  return counts.reduce((sum, match) => sum + Number(match[1]), 0);
}

test('three models, memory for two: the least recently used one gives way, and comes back', async () => {
  const needMb = await withStack({}, async (stack) => (await models(stack))[0]!.vram_estimate_mb);
  await withStack({ memoryMb: Math.floor(needMb * 2.5) }, async (stack) => {
    for (const id of ['one', 'two', 'one', 'three']) await ask(stack, id);
    const loaded = (await models(stack)).filter((each) => each.status === 'loaded').map((each) => each.id);
    assert.deepEqual(loaded.sort(), ['one', 'three']);
    assert.equal(await evictions(stack), 1);
    await ask(stack, 'two');
    assert.equal(await evictions(stack), 2);
  });
});

test('a model that could never fit evicts nothing and says what it needs', async () => {
  const needMb = await withStack({}, async (stack) => (await models(stack))[0]!.vram_estimate_mb);
  await withStack({ memoryMb: Math.floor(needMb / 2) }, async (stack) => {
    const response = await postJson(`${stack.baseUrl}/chat/completions`, { model: 'one', messages: [] });
    const text = await response.text();
    assert.ok(response.status >= 400, text);
    assert.match(text, new RegExp(`${needMb} MiB`));
    assert.equal(await evictions(stack), 0);
  });
});

test('twelve first requests at once make one load and all get their answer', async () => {
  await withStack({}, async (stack) => {
    await Promise.all(Array.from({ length: 12 }, () => ask(stack, 'one')));
    const metrics = await (await fetch(`http://127.0.0.1:${stack.gateway.metricsPort}/metrics`)).text();
    assert.match(metrics, /^cortex_cold_starts_total\{model="one",node="here"\} 1$/m);
  });
});
