/** A load under way, through the gateway, with real weights: who waits, and a cancel that stops exactly it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { postJson, type Stack, startStack } from './stack.ts';

const chat = { model: 'cortex-tiny', messages: [{ role: 'user', content: 'Hello' }], max_tokens: 4 };

describe('a load that takes long', () => {
  let stack: Stack;
  before(async () => {
    const fault = 'slow_load:ms=600000,lives=1';
    stack = await startStack({ transport: 'thread', preload: [], fault });
  });
  after(() => stack.close());

  test('is cancelled at the neuron too; its waiters hear it and nothing stays taken', async () => {
    const waiting = [postJson(`${stack.baseUrl}/chat/completions`, chat)];
    const streaming = await postJson(`${stack.baseUrl}/chat/completions`, { ...chat, stream: true });
    while (stack.neuron.registry.progress().length === 0) await new Promise((go) => setImmediate(go));
    const cancel = await postJson(`${stack.gateway.url}/admin/cancel`, { model: 'cortex-tiny' });
    assert.deepEqual(await cancel.json(), { status: 'cancelled', model: 'cortex-tiny', nodes: ['here'] });
    assert.deepEqual(stack.neuron.registry.progress(), []);
    assert.deepEqual(stack.neuron.registry.memory(), []);
    for (const answer of await Promise.all(waiting)) {
      assert.equal(answer.status, 409);
      assert.match(await answer.text(), /load_cancelled/);
    }
    const events = await streaming.text();
    assert.match(events, /load_cancelled/);
    assert.doesNotMatch(events, /\[DONE\]/);
    assert.equal(stack.gateway.fleet.waitingCount, 0);
  });
});
