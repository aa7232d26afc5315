import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { transcripts } from '../chat-transcripts.test.kit.ts';
import { openAiChat } from '../openai.ts';
import { OpenAiGrammar } from './openai-grammar.ts';

const faultOf = (bytes: Uint8Array | string, kind: 'chat' | 'completions' = 'chat'): string | null => {
  const grammar = new OpenAiGrammar(kind);
  grammar.push(Buffer.from(bytes as string));
  return grammar.end();
};
const request = Buffer.from('{"model":"m","messages":[],"stream":true}');

describe('chat streams keep their grammar as the client gets them', () => {
  for (const { name, bytes, wholeFrom } of transcripts) {
    it(`whole, and cut short anywhere: ${name}`, () => {
      for (let cut = 0; cut <= bytes.length; cut++) {
        const stream = openAiChat.parse(request).streamOut('r');
        const out = [stream.push(bytes.subarray(0, cut)), stream.keepAlive()];
        let isWhole = true;
        try {
          out.push(stream.end());
        } catch (thrown) {
          isWhole = false;
          out.push(stream.error(thrown as AppError));
        }
        assert.equal(faultOf(Buffer.concat(out)), null, `cut at ${cut}`);
        assert.equal(isWhole, cut >= wholeFrom, `cut at ${cut}`);
      }
    });
  }
});

describe('OpenAiGrammar', () => {
  const chunk = (choice: object | null, more: object = {}): string => {
    const choices = choice === null ? [] : [{ index: 0, delta: {}, finish_reason: null, ...choice }];
    const value = { id: 'a', object: 'chat.completion.chunk', model: 'm', choices, ...more };
    return `data: ${JSON.stringify(value)}\n\n`;
  };
  const done = 'data: [DONE]\n\n';
  const end = chunk({ finish_reason: 'stop' });
  const call = (more: object) =>
    chunk({ delta: { tool_calls: [{ index: 0, function: { arguments: '' }, ...more }] } });

  it('names the rule that each fault breaks', () => {
    for (const [rule, text] of [
      [null, chunk({}) + end + done],
      [null, chunk({}) + end],
      [null, 'data: {"error":{"message":"x"}}\n\n'],
      ['no_end', ''],
      ['no_end', chunk({})],
      ['no_finish_reason', chunk({}) + done],
      ['after_finish_reason', end + chunk({}) + done],
      ['after_end', end + done + done],
      ['after_end', `data: {"error":{"message":"x"}}\n\n${done}`],
      ['error_shape', 'data: {"error":"x"}\n\n'],
      ['not_json', 'data: {\n\n'],
      ['chunk_id', chunk({}) + chunk({}, { id: 'b' })],
      ['chunk_shape', chunk({}, { object: 'chat.completion' })],
      ['no_choices', chunk({}, { choices: null })],
      ['choice_index', chunk({ index: undefined })],
      ['choice_shape', chunk({ delta: null })],
      ['role', chunk({ delta: { role: '' } })],
      ['call_shape', call({ index: undefined })],
      ['call_without_id', call({})],
    ] as const) {
      assert.equal(faultOf(text), rule, text);
    }
    const text = { object: 'text_completion' };
    assert.equal(faultOf(chunk({ text: 'a', finish_reason: 'stop' }, text) + done, 'completions'), null);
    assert.equal(faultOf(chunk({}, text), 'completions'), 'choice_shape');
  });

  it('says nothing of a stream with an event that it cannot hold', () => {
    const grammar = new OpenAiGrammar('chat');
    for (let mib = 0; mib < 6; mib++) grammar.push(Buffer.alloc(1024 * 1024, 0x61));
    grammar.push(Buffer.from('\n\ndata: {\n\n'));
    assert.equal(grammar.end(), null);
  });
});
