import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { childPids } from 'testkit/child-pids';
import { postJson, type Stack, startStack, tinyFile } from './stack.ts';

const chat = { model: 'cortex-tiny', messages: [{ role: 'user', content: 'Count from 1 to 50.' }] };

async function assertServes(stack: Stack): Promise<void> {
  const response = await postJson(`${stack.baseUrl}/chat/completions`, { ...chat, max_tokens: 4 });
  assert.equal(response.status, 200, await response.text());
}

for (const transport of ['thread', 'process'] as const) {
  test(`broken model files are refused and the daemon lives on, owner in a ${transport}`, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'cortex-broken-'));
    const whole = readFileSync(tinyFile);
    copyFileSync(tinyFile, join(dir, 'cortex-tiny.gguf'));
    writeFileSync(join(dir, 'half.gguf'), whole.subarray(0, whole.length / 2));
    writeFileSync(join(dir, 'empty.gguf'), '');
    writeFileSync(join(dir, 'text.gguf'), 'this is not a model\n'.repeat(100));
    writeFileSync(join(dir, 'header.gguf'), Buffer.concat([whole.subarray(0, 24), Buffer.alloc(5000, 0xff)]));
    const stack = await startStack({ transport, dirs: [dir] });
    try {
      for (const id of ['half', 'empty', 'text', 'header']) {
        const response = await postJson(`${stack.neuron.url}/models/load`, { model_id: id });
        const text = await response.text();
        assert.ok(response.status >= 400 && response.status < 500, `${id}: ${response.status} ${text}`);
        assert.match((JSON.parse(text) as { error: string }).error, new RegExp(id), text);
        await assertServes(stack);
      }
    } finally {
      await stack.close();
      rmSync(dir, { recursive: true, force: true });
    }
  });
}

describe('kill -9 of the owner process in the middle of a stream', {
  skip: process.platform !== 'linux',
}, () => {
  test('the client gets an error event, the daemon lives, the next request is served', async () => {
    const stack = await startStack({ transport: 'process' });
    try {
      const response = await postJson(`${stack.baseUrl}/chat/completions`, {
        ...chat,
        stream: true,
        max_tokens: 1500,
        ignore_eos: true,
      });
      assert.equal(response.status, 200);
      const decoder = new TextDecoder();
      let text = '';
      let killed = false;
      for await (const chunk of response.body!) {
        text += decoder.decode(chunk, { stream: true });
        if (killed || !text.includes('"content":')) continue;
        killed = true;
        for (const pid of childPids('owner/process-main')) process.kill(pid, 'SIGKILL');
      }
      assert.ok(killed, text.slice(0, 500));
      assert.match(text, /data: \{"error":/);
      assert.doesNotMatch(text, /\[DONE\]/);
      const health = await fetch(`${stack.neuron.url}/health`);
      assert.equal(health.status, 200);
      await assertServes(stack);
    } finally {
      await stack.close();
    }
  });
});

test('a stream that a stopping neuron cuts ends in a retryable error, never in [DONE]', async () => {
  const stack = await startStack({ transport: 'thread', context: 32_768 });
  try {
    const response = await postJson(`${stack.baseUrl}/chat/completions`, {
      ...chat,
      stream: true,
      max_tokens: 32_000,
      ignore_eos: true,
    });
    const decoder = new TextDecoder();
    let text = '';
    let closing: Promise<void> | null = null;
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk, { stream: true });
      if (text.includes('"content":')) closing ??= stack.neuron.close();
    }
    await closing;
    assert.doesNotMatch(text, /\[DONE\]/);
    assert.match(text, /data: \{"error":\{.*"type":"server_error","code":"shutting_down"/);
  } finally {
    await stack.close();
  }
});
