import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { toTemplateMessages } from './messages.ts';
import { ChatTemplate } from './template.ts';

const facts = { chatTemplate: null, namedTemplates: {}, bosToken: '<s>', eosToken: '</s>', addBos: true };
const user = [{ role: 'user', content: 'hi' }];

function template(text: string | null, chatMl = false): ChatTemplate {
  return new ChatTemplate('m', { ...facts, chatTemplate: text }, async () => chatMl);
}

describe('ChatTemplate', () => {
  it('renders, and cuts a beginning token that the tokenizer adds itself', async () => {
    const text = await template('{{ bos_token }}{{ messages[0].content }}{{ x }}').render({
      messages: user,
      addGenerationPrompt: true,
      kwargs: { x: '!', bos_token: 'evil', messages: [] },
    });
    assert.equal(text, 'hi!');
  });

  it('leaves enable_thinking undefined unless it is given', async () => {
    const own = template('{{ "d" if enable_thinking is defined else "u" }}');
    assert.equal(await own.render({ messages: user, addGenerationPrompt: true }), 'u');
    const kwargs = { enable_thinking: false };
    assert.equal(await own.render({ messages: user, addGenerationPrompt: true, kwargs }), 'd');
  });

  it('names the reason when the template refuses or does not compile', async () => {
    for (const [text, reason] of [
      ["{{ raise_exception('roles must alternate') }}", /roles must alternate/],
      ['{% if %}', /could not be compiled/],
    ] as const) {
      const failed = template(text).render({ messages: user, addGenerationPrompt: true });
      await assert.rejects(
        failed,
        (error: AppError) => error.code === 'template_render_failed' && reason.test(error.message),
      );
    }
  });

  it('falls back to ChatML only where the vocabulary has it', async () => {
    const input = { messages: user, addGenerationPrompt: true };
    assert.equal(
      await template(null, true).render(input),
      '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n',
    );
    await assert.rejects(template(null).render(input), /no chat template/);
  });
});

describe('toTemplateMessages()', () => {
  it('makes one text of parts, system of developer, objects of arguments', () => {
    const { messages } = parseBody(chatRequestSchema, {
      model: 'm',
      temperature: null,
      messages: [
        {
          role: 'developer',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c', function: { name: 'f', arguments: '{"x":1}' } }],
        },
      ],
    });
    assert.deepEqual(toTemplateMessages(messages, 'm'), [
      { role: 'system', content: 'ab' },
      {
        role: 'assistant',
        content: '',
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: { x: 1 } } }],
      },
    ]);
  });
});

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
