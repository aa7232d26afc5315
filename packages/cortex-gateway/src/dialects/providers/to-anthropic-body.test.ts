import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { SeededRandom } from 'testkit/seeded-random';
import { readChatRequest } from './read-chat-request.ts';
import { toAnthropicBody } from './to-anthropic-body.ts';

const user = { role: 'user', content: 'a' };
const bodyOf = (more: object, outputMax: number | null = null) =>
  toAnthropicBody(readChatRequest({ model: 'm', messages: [user], ...more }), { model: 'far', outputMax });
interface Block {
  readonly type: string;
  readonly id?: string;
  readonly tool_use_id?: string;
  readonly text?: string;
}
interface Message {
  readonly role: string;
  readonly content: readonly Block[];
}
const messagesOf = (...messages: object[]) => bodyOf({ messages }).messages as readonly Message[];
const call = (id: string, args = '{}') => ({
  id,
  type: 'function',
  function: { name: 'f', arguments: args },
});
const text = (value: string) => ({ type: 'text', text: value });

describe('a chat request as a Messages request', () => {
  test("a limit is always said: the request's, the model's, or a default", () => {
    assert.equal(bodyOf({ max_tokens: 7 }).max_tokens, 7);
    assert.equal(bodyOf({}, 900).max_tokens, 900);
    assert.equal(bodyOf({}).max_tokens, 4096);
  });

  test("system turns at the head are the system, later ones a user's text", () => {
    const body = bodyOf({
      messages: [
        { role: 'system', content: 'one' },
        { role: 'developer', content: [text('two')] },
        user,
        { role: 'system', content: 'late' },
      ],
    });
    assert.equal(body.system, 'one\n\ntwo');
    assert.deepEqual(body.messages, [{ role: 'user', content: [text('a'), text('late')] }]);
  });

  test('results stand behind their calls in order; what is missing is said, what is stray becomes text', () => {
    assert.deepEqual(
      messagesOf(
        user,
        { role: 'assistant', content: ' ', tool_calls: [call('x'), call('y', 'no json')] },
        { role: 'tool', tool_call_id: 'y', content: 'two' },
        { role: 'tool', tool_call_id: 'z', content: 'stray' },
      ).slice(1),
      [
        {
          role: 'assistant',
          content: [
            { type: 'tool_use', id: 'x', name: 'f', input: {} },
            { type: 'tool_use', id: 'y', name: 'f', input: { arguments: 'no json' } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'x', content: [text('[no result]')] },
            { type: 'tool_result', tool_use_id: 'y', content: [text('two')] },
            text('[result of z]\nstray'),
          ],
        },
      ],
    );
  });

  test('images go as they are, by address or as bytes', () => {
    const image = (url: string) => ({ role: 'user', content: [{ type: 'image_url', image_url: { url } }] });
    assert.deepEqual(messagesOf(image('data:image/png;base64,AA'), image('https://x/y.png'))[0]?.content, [
      { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA' } },
      { type: 'image', source: { type: 'url', url: 'https://x/y.png' } },
    ]);
  });

  test('a wanted form of the answer is asked for', () => {
    const schema = { type: 'object', properties: {} };
    const formed = bodyOf({ response_format: { type: 'json_schema', json_schema: { name: 'n', schema } } });
    assert.deepEqual(formed.output_config, { format: { type: 'json_schema', schema } });
    assert.match(String(bodyOf({ response_format: { type: 'json_object' } }).system), /JSON object/);
  });

  test('thinking is off in the middle of calls, whose thinking has no signature to show', () => {
    const messages = [
      user,
      { role: 'assistant', tool_calls: [call('x')] },
      { role: 'tool', tool_call_id: 'x', content: 'r' },
    ];
    const more = { reasoning_effort: 'low', max_tokens: 9000 };
    assert.equal(bodyOf({ ...more, messages }).thinking, undefined);
    assert.ok(
      bodyOf({ ...more, messages: [...messages, { role: 'assistant', content: 'b' }, user] }).thinking,
    );
    const tools = [{ type: 'function', function: { name: 'f' } }];
    assert.equal(bodyOf({ ...more, tools, tool_choice: 'required' }).thinking, undefined);
  });

  test('wrong types are refused with their path, and never crash', () => {
    for (const [more, param] of [
      [{ messages: 'x' }, 'messages'],
      [{ messages: [null] }, 'messages.0'],
      [{ messages: [{ role: 'user', content: 5 }] }, 'messages.0.content'],
      [{ messages: [{ role: 'user', content: [{ type: 'hologram' }] }] }, 'messages.0.content.0.type'],
      [{ messages: [user, { role: 'assistant', tool_calls: [null] }] }, 'messages.1.tool_calls.0.id'],
      [{ tools: [{ type: 'function' }] }, 'tools.0.function.name'],
    ] as const) {
      assert.throws(
        () => bodyOf(more),
        (thrown: AppError) => thrown.code === 'invalid_request' && thrown.param === param,
      );
    }
  });

  test('random histories keep the rules of the API: sides alternate, each call has its result behind it', () => {
    const seed = Number(process.env.CORTEX_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = new SeededRandom(seed);
    const upTo = (n: number): number => random.int(0, n - 1);
    for (let round = 0; round < 500; round++) {
      const messages = Array.from({ length: 1 + upTo(8) }, (_, at) => {
        const content = ['', ' ', 'a', null][upTo(4)];
        const id = `c${upTo(3)}`;
        const roles = [
          { role: 'system', content },
          { role: 'user', content },
          { role: 'assistant', content, reasoning_content: 'hm' },
          { role: 'assistant', content, tool_calls: [call(`${id}.${at}`), call(`d${at}`)] },
          { role: 'tool', tool_call_id: `${id}.${upTo(8)}`, content },
        ];
        return roles[upTo(roles.length)] ?? user;
      });
      let sent: readonly Message[];
      try {
        sent = messagesOf(...messages, user);
      } catch (thrown) {
        assert.ok(thrown instanceof AppError, `seed ${seed}, round ${round}`);
        continue;
      }
      for (const [at, { role, content }] of sent.entries()) {
        const where = `seed ${seed}, round ${round}, ${JSON.stringify(messages)}`;
        assert.equal(role, at % 2 === 0 ? 'user' : 'assistant', where);
        assert.ok(content.length > 0, where);
        assert.ok(
          content.every((block) => block.type !== 'text' || block.text?.trim() !== ''),
          where,
        );
        const calls = content.filter(({ type }) => type === 'tool_use').map(({ id }) => id);
        const results = (sent[at + 1]?.content ?? []).filter(({ type }) => type === 'tool_result');
        assert.deepEqual(
          results.map((block) => block.tool_use_id),
          role === 'assistant' ? calls : [],
          where,
        );
      }
    }
  });
});
