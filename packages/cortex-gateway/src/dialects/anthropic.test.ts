import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import { chatStream } from 'testkit/fake-neuron';
import { anthropicMessages } from './anthropic.ts';
import { AnthropicStream } from './anthropic-stream.ts';

const upstreamOf = (request: object) => {
  const body = Buffer.from(JSON.stringify({ model: 'm', max_tokens: 9, ...request }));
  return JSON.parse(Buffer.from(anthropicMessages.parse(body).toUpstream({ wireId: 'wire' })).toString());
};

describe('request', () => {
  test('becomes OpenAI chat: system, merged turns, stops, sampling', () => {
    const chat = upstreamOf({
      system: [
        { type: 'text', text: 'x-anthropic-billing-header: cch=1' },
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two', cache_control: {} },
      ],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'a' }] },
        { role: 'system', content: 'note' },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'x' },
            { type: 'text', text: 'b' },
          ],
        },
        { role: 'user', content: 'c' },
      ],
      stop_sequences: ['END'],
      temperature: 0,
      top_k: 3,
      stream: true,
      thinking: { type: 'enabled', budget_tokens: 99999 },
      top_p: null,
    });
    assert.deepEqual(chat, {
      model: 'wire',
      messages: [
        { role: 'system', content: 'one\n\ntwo' },
        { role: 'user', content: 'a\n\nnote' },
        { role: 'assistant', content: 'b' },
        { role: 'user', content: 'c' },
      ],
      max_tokens: 9,
      stream: true,
      stream_options: { include_usage: true },
      temperature: 0,
      top_k: 3,
      stop: ['END'],
    });
  });

  test('names the field at fault', () => {
    const messages = [{ role: 'user', content: [{ type: 'image', source: {} }] }];
    assert.throws(() => upstreamOf({ messages }), {
      code: 'unsupported_parameter',
      param: 'messages.0.content.0.type',
    });
    assert.throws(() => upstreamOf({}), { param: 'messages' });
    assert.throws(() => upstreamOf({ messages: [{ role: 'user', content: 'x' }], max_tokens: undefined }), {
      message: /max_tokens: Field required/,
    });
  });
});

describe('stream', () => {
  const replay = (bytes: Buffer, size: number): { text: string; ended: boolean } => {
    const stream = new AnthropicStream('m', 3, 'req_1');
    const out: Uint8Array[] = [];
    for (let i = 0; i < bytes.length; i += size) out.push(stream.push(bytes.subarray(i, i + size)));
    try {
      out.push(stream.end());
      return { text: Buffer.concat(out).toString(), ended: true };
    } catch (thrown) {
      assert.ok(thrown instanceof AppError);
      out.push(stream.error(thrown));
      return { text: Buffer.concat(out).toString(), ended: false };
    }
  };
  const bytes = Buffer.from(chatStream('m', ['日本語', '🙂'], 'length'));

  test('is the same for every chunking', () => {
    const whole = replay(bytes, bytes.length).text;
    for (let size = 1; size < 40; size++) assert.equal(replay(bytes, size).text, whole);
    assert.match(whole, /"stop_reason":"max_tokens"/);
  });

  test('cut short anywhere before the finish reason it ends in an error, never in message_stop', () => {
    const finish = bytes.indexOf('"finish_reason":"length"');
    for (let cut = 0; cut < finish; cut += 13) {
      const { text, ended } = replay(bytes.subarray(0, cut), 7);
      assert.equal(ended, false);
      assert.ok(!text.includes('message_stop'));
      assert.equal(new SseParser().push(Buffer.from(text)).at(-1)?.event, 'error');
    }
  });
});
