import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { type PlainMessage, toPlainMessages, toTemplateTools } from './messages.ts';

const reader = { modelId: 'm', capabilities: ['text', 'tools'] };

function read(...messages: unknown[]): PlainMessage[] {
  return toPlainMessages(parseBody(chatRequestSchema, { model: 'm', messages }).messages, reader);
}

describe('toPlainMessages()', () => {
  it('makes one text of parts, system of developer, objects of arguments', () => {
    const parts = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ];
    const call = { id: 'c', function: { name: 'f', arguments: '{"x":1}' } };
    assert.deepEqual(
      read({ role: 'developer', content: parts }, { role: 'assistant', content: null, tool_calls: [call] }),
      [
        { role: 'system', content: 'ab' },
        {
          role: 'assistant',
          content: '',
          tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: { x: 1 } } }],
        },
      ],
    );
  });

  it('names a result after its call', () => {
    const call = { id: 'c', function: { name: 'f', arguments: '' } };
    const [, result] = read(
      { role: 'assistant', content: '', tool_calls: [call] },
      { role: 'tool', tool_call_id: 'c', content: 'r' },
    );
    assert.equal(result?.name, 'f');
  });

  it('takes the form of before tools', () => {
    const [said, result] = read(
      { role: 'assistant', content: null, function_call: { name: 'f', arguments: '{"x":1}' } },
      { role: 'function', name: 'f', content: 'r' },
    );
    assert.deepEqual(said?.tool_calls, [
      { id: 'call_0', type: 'function', function: { name: 'f', arguments: { x: 1 } } },
    ]);
    assert.deepEqual(result, { role: 'tool', content: 'r', name: 'f', tool_call_id: 'call_0' });
  });

  it('keeps the text of a call that was cut short, and reasoning under either name', () => {
    const call = { id: 'c', function: { name: 'f', arguments: '{"x":' } };
    const [said, more] = read(
      { role: 'assistant', content: '', tool_calls: [call] },
      { role: 'assistant', content: 'x', reasoning: 'why' },
    );
    assert.equal(said?.tool_calls?.[0]?.function.arguments, '{"x":');
    assert.equal(more?.reasoning_content, 'why');
  });

  it('refuses what the model cannot read, with what it can', () => {
    for (const type of ['image_url', 'input_audio', 'file']) {
      assert.throws(
        () =>
          read({
            role: 'user',
            content: [
              { type: 'text', text: 'x' },
              { type, [type]: {} },
            ],
          }),
        (error: AppError) =>
          error.code === 'vision_unsupported' &&
          error.param === 'messages.0.content.1' &&
          JSON.stringify(error.extras.capabilities) === '["text","tools"]',
      );
    }
  });

  it('names a role that there is not', () => {
    assert.throws(
      () => read({ role: 'constructor', content: 'x' }),
      (error: AppError) => error.code === 'invalid_request_body' && error.param === 'messages.0.role',
    );
  });
});

describe('toTemplateTools()', () => {
  it('shows the model functions as they were given, without what is not for it', () => {
    const tools = [{ type: 'function', function: { name: 'f', strict: true, description: 'd' } }];
    const { tools: parsed } = parseBody(chatRequestSchema, {
      model: 'm',
      messages: [{ role: 'user' }],
      tools,
    });
    assert.equal(
      JSON.stringify(toTemplateTools(parsed)),
      '[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}}}}]',
    );
  });

  it('refuses tools of other types by their place', () => {
    assert.throws(
      () => toTemplateTools([{ type: 'web_search', function: undefined }]),
      (error: AppError) => error.code === 'unsupported_parameter' && error.param === 'tools.0',
    );
  });
});
