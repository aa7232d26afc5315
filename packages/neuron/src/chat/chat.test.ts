import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { ChatAnswer } from './answer.ts';
import { type AnswerEvent, ToolCallParser } from './tool-calls.ts';

function merge(events: readonly AnswerEvent[]): AnswerEvent[] {
  const merged: AnswerEvent[] = [];
  for (const event of events) {
    const last = merged.at(-1);
    if (event.kind === 'text' && last?.kind === 'text') {
      merged[merged.length - 1] = { kind: 'text', text: last.text + event.text };
    } else merged.push(event);
  }
  return merged;
}

describe('parseBody()', () => {
  it('names the field that is wrong', () => {
    const body = { model: 'm', messages: [{ role: 'user', content: [{ type: 1 }] }] };
    assert.throws(
      () => parseBody(chatRequestSchema, body),
      (error: AppError) =>
        error.code === 'invalid_request_body' && error.param === 'messages.0.content.0.type',
    );
  });
});

describe('ToolCallParser', () => {
  const call = '<tool_call>\n{"name": "f", "arguments": {"a": "<b>"}}\n</tool_call>';
  const cases: [string, AnswerEvent[]][] = [
    ['no call <tool', [{ kind: 'text', text: 'no call <tool' }]],
    [call, [{ kind: 'call', name: 'f', argumentsJson: '{"a":"<b>"}' }]],
    [
      `text\n${call}\n${call}\n`,
      [
        { kind: 'text', text: 'text' },
        { kind: 'call', name: 'f', argumentsJson: '{"a":"<b>"}' },
        { kind: 'call', name: 'f', argumentsJson: '{"a":"<b>"}' },
      ],
    ],
    ['<tool_call>nonsense</tool_call>!', [{ kind: 'text', text: '<tool_call>nonsense</tool_call>!' }]],
    ['a <tool_call>{"name": "f"', [{ kind: 'text', text: 'a <tool_call>{"name": "f"' }]],
  ];
  it('yields the same for every way to cut the text', () => {
    for (const [text, expected] of cases) {
      for (let size = 1; size <= text.length; size++) {
        const parser = new ToolCallParser();
        const events: AnswerEvent[] = [];
        for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
        events.push(...parser.end());
        assert.deepEqual(merge(events), expected, `size ${size} of ${JSON.stringify(text)}`);
      }
    }
  });
});

describe('ChatAnswer', () => {
  it('ends a tool call with tool_calls, in chunks and whole', () => {
    const answer = new ChatAnswer({ id: 'chatcmpl-1', created: 1, model: 'm' }, { parseToolCalls: true });
    const result = {
      finishReason: 'stop',
      stopText: null,
      usage: { promptTokens: 1, cachedTokens: 0, completionTokens: 1 },
      timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
    } as const;
    const chunks = answer.step({ text: '<tool_call>{"name":"f"}</tool_call>', tokens: [1] });
    assert.equal(chunks[0]?.choices[0]?.delta.tool_calls?.[0]?.index, 0);
    assert.equal(answer.finish(result).at(-1)?.choices[0]?.finish_reason, 'tool_calls');
    const whole = answer.whole(result, { queue_ms: 0, prefill_ms: 0, decode_ms: 0 });
    assert.equal(whole.choices[0]?.message.content, null);
    assert.equal(whole.choices[0]?.message.tool_calls?.[0]?.function.arguments, '{}');
  });
});
