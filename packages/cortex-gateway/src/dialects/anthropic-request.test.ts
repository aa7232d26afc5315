import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import { anthropicMessages } from './anthropic.ts';
import { hiddenText, toSignature } from './anthropic-signature.ts';
import type { JsonObject } from './request-body.ts';

const user = (content: unknown) => ({ role: 'user', content });
const assistant = (content: unknown) => ({ role: 'assistant', content });
const tool = (name: string, more: object = {}) => ({ name, input_schema: { type: 'object' }, ...more });

const bytesOf = (request: object) =>
  Buffer.from(JSON.stringify({ model: 'm', max_tokens: 9, messages: [user('hi')], ...request }));
const chatOf = (
  request: object,
  capabilities: readonly string[] | null = null,
  hygiene = false,
): JsonObject => {
  const parsed = anthropicMessages.parse(bytesOf(request), { prefixHygiene: hygiene });
  return JSON.parse(Buffer.from(parsed.toUpstream({ wireId: 'wire', capabilities })).toString());
};
const toolsOf = (request: object) =>
  ((chatOf(request).tools ?? []) as { function: { name: string } }[]).map((each) => each.function.name);
const refusal = (request: object): [string, string | null] => {
  try {
    chatOf(request);
  } catch (error) {
    return [(error as AppError).code, (error as AppError).param];
  }
  return ['none', null];
};

describe('a Messages request becomes a chat request', () => {
  it('with system, merged turns, stops, sampling and the user', () => {
    const chat = chatOf({
      system: [
        { type: 'text', text: 'one' },
        { type: 'text', text: 'two', cache_control: { type: 'ephemeral' } },
      ],
      messages: [
        user([{ type: 'text', text: 'a' }]),
        { role: 'system', content: 'note' },
        assistant([
          { type: 'thinking', thinking: 'x', signature: 'theirs' },
          { type: 'redacted_thinking', data: 'zzz' },
          { type: 'text', text: 'b' },
        ]),
        user('c'),
        user('d'),
      ],
      stop_sequences: ['END', ''],
      ...{ temperature: 0, top_k: 3, top_p: null, stream: true, service_tier: 'auto', container: null },
      metadata: { user_id: '{"session_id":"s"}' },
      context_management: { edits: [{ type: 'clear_tool_uses_20250919' }] },
      mcp_servers: [],
    });
    assert.deepEqual(chat, {
      model: 'wire',
      messages: [
        { role: 'system', content: 'one\n\ntwo' },
        { role: 'user', content: 'a' },
        { role: 'system', content: 'note' },
        { role: 'assistant', content: 'b', reasoning_content: 'x' },
        { role: 'user', content: 'c\n\nd' },
      ],
      max_tokens: 9,
      stream: true,
      stream_options: { include_usage: true, include_prompt_usage: true },
      temperature: 0,
      top_k: 3,
      user: '{"session_id":"s"}',
      stop: ['END'],
    });
  });

  it('the same for a text and for one block with that text', () => {
    const forms = [
      { system: 's', messages: [user('u'), assistant('a'), user('v')] },
      {
        system: [{ type: 'text', text: 's', cache_control: { type: 'ephemeral' } }],
        messages: ['u', 'a', 'v'].map((text, at) => ({
          role: at === 1 ? 'assistant' : 'user',
          content: [{ type: 'text', text, cache_control: { type: 'ephemeral', ttl: '1h' } }],
        })),
      },
    ];
    assert.deepEqual(chatOf(forms[0]!), chatOf(forms[1]!));
  });

  it('with calls, and results in their order, errors marked', () => {
    const chat = chatOf({
      tools: [tool('look', { description: 'd', strict: true, cache_control: {} })],
      messages: [
        user('go'),
        assistant([
          { type: 'text', text: 'I look.' },
          { type: 'tool_use', id: 'toolu_1', name: 'look', input: { at: 'x' } },
          { type: 'tool_use', id: 'toolu_2', name: 'look', input: {} },
          { type: 'tool_use', id: 'toolu_3', name: 'look', input: {} },
        ]),
        user([
          { type: 'tool_result', tool_use_id: 'toolu_2', is_error: true, content: 'no such file' },
          { type: 'text', text: 'and?' },
          {
            type: 'tool_result',
            tool_use_id: 'toolu_1',
            content: [
              { type: 'text', text: 'found' },
              { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA' } },
              {
                type: 'document',
                title: 'a.pdf',
                source: { type: 'base64', media_type: 'application/pdf', data: 'AA' },
              },
              { type: 'hologram' },
            ],
          },
          { type: 'tool_result', tool_use_id: 'toolu_3' },
        ]),
      ],
    });
    const calls = [
      ['toolu_1', '{"at":"x"}'],
      ['toolu_2', '{}'],
      ['toolu_3', '{}'],
    ].map(([id, given]) => ({ id, type: 'function', function: { name: 'look', arguments: given } }));
    assert.deepEqual(chat.messages, [
      { role: 'user', content: 'go' },
      { role: 'assistant', content: 'I look.', tool_calls: calls },
      {
        role: 'tool',
        tool_call_id: 'toolu_1',
        content:
          'found\n[image omitted: the model has no vision]\n' +
          '[document omitted: a.pdf: the model reads text only]\n[hologram omitted: not known here]',
      },
      { role: 'tool', tool_call_id: 'toolu_2', content: 'Error: no such file' },
      { role: 'tool', tool_call_id: 'toolu_3', content: '' },
      { role: 'user', content: 'and?' },
    ]);
    assert.deepEqual(chat.tools, [
      {
        type: 'function',
        function: { name: 'look', description: 'd', parameters: { type: 'object' }, strict: true },
      },
    ]);
  });

  it('with tools that a model can be told of, and without those that servers elsewhere would run', () => {
    assert.deepEqual(
      toolsOf({
        tools: [
          tool('mine'),
          tool('typed', { type: 'custom' }),
          tool('newer', { type: 'something_20990101' }),
          { type: 'web_search_20250305', name: 'web_search', max_uses: 5 },
          { type: 'code_execution_20250825', name: 'code_execution' },
          { type: 'mcp_toolset', mcp_server_name: 'x' },
          { type: 'bash_20250124', name: 'bash' },
          { type: 'text_editor_20250728', name: 'str_replace_based_edit_tool', max_characters: 10 },
          tool('DeferredToolPlaceholder'),
        ],
      }),
      ['mine', 'typed', 'newer', 'bash', 'str_replace_based_edit_tool'],
    );
    assert.equal('tools' in chatOf({ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }), false);
    const [{ function: schema }] = chatOf({
      tools: [tool('t', { input_schema: { $schema: 'https://x', type: 'object', properties: {} } })],
    }).tools as [{ function: { parameters: object } }];
    assert.deepEqual(schema.parameters, { type: 'object', properties: {} });
  });

  it('shows a deferred tool once the conversation has come to it, behind the others', () => {
    const tools = [
      tool('ToolSearch'),
      tool('late', { defer_loading: true }),
      tool('later', { defer_loading: true }),
      tool('now'),
    ];
    assert.deepEqual(toolsOf({ tools }), ['ToolSearch', 'now']);
    const found = [
      user('go'),
      assistant([{ type: 'tool_use', id: 'a', name: 'ToolSearch', input: {} }]),
      user([
        { type: 'tool_result', tool_use_id: 'a', content: [{ type: 'tool_reference', tool_name: 'later' }] },
      ]),
    ];
    assert.deepEqual(toolsOf({ tools, messages: found }), ['ToolSearch', 'now', 'later']);
    const said = (chatOf({ tools, messages: found }).messages as { content: string }[]).at(-1)?.content;
    assert.match(said ?? '', /<function>\{"name":"later","parameters":\{"type":"object"\}\}<\/function>/);
    assert.deepEqual(toolsOf({ tools, tool_choice: { type: 'tool', name: 'late' } }), [
      'ToolSearch',
      'now',
      'late',
    ]);
    // without a way to find them they would never come up
    assert.deepEqual(toolsOf({ tools: tools.slice(1) }), ['late', 'later', 'now']);
    const served = [...tools, { type: 'tool_search_tool_regex_20251119', name: 'tool_search_tool_regex' }];
    assert.deepEqual(toolsOf({ tools: served }), ['ToolSearch', 'late', 'later', 'now']);
  });

  it('takes tools that come and go in the middle', () => {
    const change = (type: string, changed: object) => ({
      role: 'system',
      content: [{ type, tool: changed }],
    });
    const define = { type: 'tool_definition', definition: tool('new') };
    const refer = { type: 'tool_reference', name: 'old' };
    const tools = [tool('old'), tool('stays')];
    const after = (...changes: object[]) => toolsOf({ tools, messages: [user('a'), ...changes] });
    assert.deepEqual(after(change('tool_addition', define)), ['old', 'stays', 'new']);
    assert.deepEqual(after(change('tool_removal', refer)), ['stays']);
    assert.deepEqual(after(change('tool_removal', refer), change('tool_addition', refer)), ['old', 'stays']);
    assert.deepEqual(after(change('tool_addition', { type: 'mcp_toolset_reference', server_name: 'x' })), [
      'old',
      'stays',
    ]);
  });

  it('with system turns that hold for one turn, or only say how hard to think', () => {
    const note = { role: 'system', content: 'note', clear_at: 'next_user_message' };
    const rolesOf = (messages: object[]) =>
      (chatOf({ messages }).messages as JsonObject[]).map(({ role }) => role);
    assert.deepEqual(rolesOf([user('a'), note]), ['user', 'system']);
    assert.deepEqual(rolesOf([user('a'), note, assistant('b'), user('c')]), ['user', 'assistant', 'user']);
    const hard = { role: 'system', output_config: { effort: 'high' } };
    const chat = chatOf({ messages: [user('a'), hard], output_config: { effort: 'low' } }, ['reasoning']);
    assert.equal(chat.reasoning_effort, 'high');
    assert.equal((chat.messages as JsonObject[]).length, 1);
  });

  it('with each tool_choice', () => {
    const choose = (tool_choice: unknown, tools: unknown[] = [tool('t')]) => {
      const chat = chatOf({ tools, tool_choice });
      return [chat.tool_choice, chat.parallel_tool_calls];
    };
    assert.deepEqual(choose(undefined), [undefined, undefined]);
    assert.deepEqual(choose({ type: 'auto' }), ['auto', undefined]);
    assert.deepEqual(choose({ type: 'none' }), ['none', undefined]);
    assert.deepEqual(choose({ type: 'any', disable_parallel_tool_use: true }), ['required', false]);
    assert.deepEqual(choose({ type: 'tool', name: 't', disable_parallel_tool_use: false }), [
      { type: 'function', function: { name: 't' } },
      true,
    ]);
    // what was dropped cannot be forced
    const served = [{ type: 'web_search_20250305', name: 'web_search' }];
    assert.deepEqual(choose({ type: 'tool', name: 'web_search' }, served), [undefined, undefined]);
    assert.deepEqual(choose({ type: 'any' }, served), [undefined, undefined]);
  });

  it('with each kind of thinking', () => {
    const think = (thinking: unknown, more: object = {}, capabilities: string[] = ['reasoning']) => {
      const { enable_thinking, thinking_budget_tokens, reasoning_effort } = chatOf(
        { thinking, max_tokens: 1000, ...more },
        capabilities,
      );
      return [enable_thinking, thinking_budget_tokens, reasoning_effort];
    };
    assert.deepEqual(think(undefined), [undefined, undefined, undefined]);
    assert.deepEqual(think({ type: 'disabled' }), [false, undefined, undefined]);
    assert.deepEqual(think({ type: 'adaptive', display: 'updates' }), [true, undefined, undefined]);
    assert.deepEqual(think({ type: 'between_tools' }), [undefined, undefined, undefined]);
    assert.deepEqual(think({ type: 'enabled', budget_tokens: 500 }), [true, 500, undefined]);
    // a budget beyond max_tokens is sent by real clients: some room is left for the answer
    assert.deepEqual(think({ type: 'enabled', budget_tokens: 32000 }), [true, 800, undefined]);
    const effort = { output_config: { effort: 'low' } };
    assert.deepEqual(think(undefined, effort), [undefined, undefined, 'low']);
    assert.deepEqual(think(undefined, effort, ['text']), [undefined, undefined, undefined]);
    assert.deepEqual(think(undefined, { output_config: { effort: 'colossal' } }), [
      undefined,
      undefined,
      undefined,
    ]);
  });

  it('with the reasoning of its history, also where the client was not shown it', () => {
    const turns = (blocks: object[]) => [
      user('a'),
      assistant([...blocks, { type: 'text', text: 'b' }]),
      user('c'),
    ];
    const reasoningOf = (messages: object[], more: object = {}) =>
      (chatOf({ messages, ...more }).messages as JsonObject[]).map((each) => each.reasoning_content ?? null);
    const signature = toSignature('denke 🤔');
    assert.deepEqual(reasoningOf(turns([{ type: 'thinking', thinking: '', signature }])), [
      null,
      'denke 🤔',
      null,
    ]);
    assert.deepEqual(reasoningOf(turns([{ type: 'thinking', thinking: 'x', signature: 'ErUB...' }])), [
      null,
      'x',
      null,
    ]);
    assert.deepEqual(reasoningOf(turns([{ type: 'thinking', thinking: 'x' }])), [null, 'x', null]);
    assert.equal(hiddenText('ErUB'), '');
    const long = [
      ...turns([{ type: 'thinking', thinking: '1' }]),
      ...turns([{ type: 'thinking', thinking: '2' }]),
    ];
    const clear = (keep: unknown) => ({
      context_management: { edits: [{ type: 'clear_thinking_20251015', keep }] },
    });
    const kept = (keep: unknown) => reasoningOf(long, clear(keep)).filter((each) => each !== null);
    assert.deepEqual(kept('all'), ['1', '2']);
    assert.deepEqual(kept({ type: 'thinking_turns', value: 1 }), ['2']);
    assert.deepEqual(kept(undefined), ['2']);
  });

  it('that continues a last turn of the assistant, and answers one that called', () => {
    assert.equal(chatOf({ messages: [user('a'), assistant('{')] }).continue_final_message, true);
    assert.equal(chatOf({ messages: [user('a'), assistant('')] }).continue_final_message, undefined);
    const called = chatOf({
      messages: [user('a'), assistant([{ type: 'tool_use', id: 'x', name: 'f', input: {} }])],
    });
    assert.equal(called.continue_final_message, undefined);
    assert.deepEqual((called.messages as JsonObject[]).at(-1)?.content, '[no result]');
  });

  it('with a schema for the answer, in the new place and the old', () => {
    const format = { type: 'json_schema', schema: { $schema: 'x', type: 'object' } };
    const expected = { type: 'json_schema', json_schema: { name: 'output', schema: { type: 'object' } } };
    assert.deepEqual(chatOf({ output_config: { format } }).response_format, expected);
    assert.deepEqual(chatOf({ output_format: format }).response_format, expected);
    assert.equal(
      'response_format' in chatOf({ output_config: { effort: 'low' }, output_format: null }),
      false,
    );
  });

  it('with documents that are text as text, and search results', () => {
    const content = [
      {
        type: 'document',
        title: 'T',
        source: { type: 'text', media_type: 'text/plain', data: 'body' },
        citations: {},
      },
      { type: 'document', source: { type: 'content', content: [{ type: 'text', text: 'inner' }] } },
      { type: 'search_result', title: 'S', source: 'http://s', content: [{ type: 'text', text: 'hit' }] },
    ];
    assert.deepEqual(
      (chatOf({ messages: [user(content)] }).messages as JsonObject[])[0]?.content,
      [
        '<document title="T">\nbody\n</document>\n',
        '<document>\ninner\n</document>\n',
        '<search_result title="S, http://s">\nhit\n</search_result>\n',
      ].join(''),
    );
  });

  it('with images by address and by content, refused by name where the model cannot see', () => {
    const content = [
      { type: 'text', text: 'see' },
      { type: 'image', source: { type: 'url', url: 'http://x/y.png' } },
    ];
    assert.deepEqual(
      (chatOf({ messages: [user(content)] }, ['vision']).messages as JsonObject[])[0]?.content,
      [
        { type: 'text', text: 'see' },
        { type: 'image_url', image_url: { url: 'http://x/y.png' } },
      ],
    );
    assert.throws(() => chatOf({ messages: [user(content)] }, ['text']), {
      code: 'vision_unsupported',
      param: 'messages.0.content.1',
    });
  });

  it('sized with all that the model will read', () => {
    const big = 'x'.repeat(4000);
    const use = { type: 'tool_use', id: 'a', name: 'f', input: { big } };
    const result = { type: 'tool_result', tool_use_id: 'a', content: [{ type: 'text', text: big }] };
    const parsed = anthropicMessages.parse(
      bytesOf({
        system: big,
        messages: [user('a'), assistant([use]), user([result])],
        tools: [tool('f', { description: big })],
      }),
    );
    assert.ok(parsed.promptTokensEstimate >= 3000 && parsed.promptTokensEstimate < 3100);
    assert.ok(parsed.inputTokensEstimate >= 4000);
  });
});

describe('a fault in a Messages request is a 400 that names the field', () => {
  const block = (value: unknown) => ({ messages: [user([value])] });
  const use = (more: object) => ({ type: 'tool_use', id: 'a', name: 'f', input: {}, ...more });
  const result = (more: object) => ({ type: 'tool_result', tool_use_id: 'a', ...more });
  const deep = (levels: number): unknown => (levels === 0 ? {} : { a: deep(levels - 1) });
  for (const [param, request] of [
    ['model', { model: null }],
    ['model', { model: 7 }],
    ['max_tokens', { max_tokens: undefined }],
    ['max_tokens', { max_tokens: '9' }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 1.5 }],
    ['messages', { messages: undefined }],
    ['messages', { messages: {} }],
    ['messages', { messages: [] }],
    ['messages.0', { messages: ['hi'] }],
    ['messages.0.role', { messages: [{ content: 'hi' }] }],
    ['messages.0.role', { messages: [{ role: 'tool', content: 'hi' }] }],
    ['messages.0.role', { messages: [{ role: 5, content: 'hi' }] }],
    ['messages.0.content', { messages: [{ role: 'user' }] }],
    ['messages.0.content', { messages: [user(5)] }],
    ['messages.0.content', { messages: [user('')] }],
    ['messages.0.content', { messages: [user([])] }],
    ['messages.0.content.0', block('hi')],
    ['messages.0.content.0.type', block({ text: 'hi' })],
    ['messages.0.content.0.type', block({ type: 'hologram' })],
    ['messages.0.content.0.text', block({ type: 'text' })],
    ['messages.0.content.0.text', block({ type: 'text', text: 5 })],
    ['messages.0.content.0.source', block({ type: 'image' })],
    ['messages.0.content.0.source.type', block({ type: 'image', source: {} })],
    ['messages.0.content.0.source.type', block({ type: 'image', source: { type: 'fax' } })],
    [
      'messages.0.content.0.source.data',
      block({ type: 'image', source: { type: 'base64', media_type: 'image/png' } }),
    ],
    ['messages.0.content.0.type', block(use({}))],
    ['messages.0.content.0.type', { messages: [assistant([result({})])] }],
    ['messages.0.content.0.tool_use_id', block(result({ tool_use_id: null }))],
    ['messages.0.content.0.is_error', block(result({ is_error: 'yes' }))],
    ['messages.0.content.0.content', block(result({ content: 5 }))],
    ['messages.0.content.0.content.0.text', block(result({ content: [{ type: 'text' }] }))],
    ['messages.0.content.1.tool_use_id', { messages: [user([result({}), result({})])] }],
    ['messages.1.content.0.id', { messages: [user('a'), assistant([use({ id: undefined })])] }],
    ['messages.1.content.0.name', { messages: [user('a'), assistant([use({ name: '' })])] }],
    ['messages.1.content.0.input', { messages: [user('a'), assistant([use({ input: 'x' })])] }],
    ['messages.1.content.1.id', { messages: [user('a'), assistant([use({}), use({})])] }],
    ['system', { system: 5 }],
    ['system.0.text', { system: [{ type: 'text' }] }],
    ['system.0.type', { system: [{ type: 'image', source: {} }] }],
    ['stream', { stream: 'yes' }],
    ['temperature', { temperature: 'hot' }],
    ['temperature', { temperature: -1 }],
    ['top_p', { top_p: 2 }],
    ['top_k', { top_k: 0.5 }],
    ['stop_sequences', { stop_sequences: 'END' }],
    ['stop_sequences', { stop_sequences: Array(65).fill('x') }],
    ['stop_sequences.1', { stop_sequences: ['a', 5] }],
    ['metadata', { metadata: 'x' }],
    ['metadata.user_id', { metadata: { user_id: 5 } }],
    ['tools', { tools: {} }],
    ['tools', { tools: Array.from({ length: 10_000 }, (_, at) => tool(`t${at}`)) }],
    ['tools', { tools: [tool('t'), tool('t')] }],
    ['tools.0', { tools: [null] }],
    ['tools.0.name', { tools: [{ input_schema: {} }] }],
    ['tools.0.name', { tools: [tool('has space')] }],
    ['tools.0.input_schema', { tools: [{ name: 't' }] }],
    ['tools.0.input_schema', { tools: [{ name: 't', input_schema: [] }] }],
    ['tools.0.description', { tools: [tool('t', { description: 5 })] }],
    ['tool_choice', { tool_choice: 'auto' }],
    ['tool_choice', { tool_choice: { type: 'any' } }],
    ['tool_choice.type', { tool_choice: { type: 'perhaps' } }],
    ['tool_choice.name', { tools: [tool('t')], tool_choice: { type: 'tool' } }],
    ['tool_choice.name', { tools: [tool('t')], tool_choice: { type: 'tool', name: 'u' } }],
    ['thinking', { thinking: true }],
    ['thinking.type', { thinking: {} }],
    ['thinking.type', { thinking: { type: 'furious' } }],
    ['thinking.budget_tokens', { thinking: { type: 'enabled', budget_tokens: 'all' } }],
    ['output_config', { output_config: 'high' }],
    ['output_config.format.type', { output_config: { format: { type: 'text' } } }],
    ['output_format.schema', { output_format: { type: 'json_schema' } }],
    ['context_management', { context_management: [] }],
    ['messages.1.content', { messages: [user('a'), { role: 'system' }] }],
    ['messages.0.content.0.type', block({ type: 'tool_addition', tool: {} })],
    ['messages.0.content.0.tool', { messages: [{ role: 'system', content: [{ type: 'tool_addition' }] }] }],
    ['messages', { messages: [assistant([use({ input: deep(200) })])] }],
  ] as [string, object][]) {
    it(`${param}: ${JSON.stringify(request).slice(0, 70)}`, () => {
      const [code, at] = refusal(request);
      assert.ok(code === 'invalid_request' || (param === 'model' && code === 'missing_model_field'), code);
      assert.equal(at, param);
    });
  }

  it('and a thread is refused in the words at which the SDK sends the whole conversation', () => {
    for (const thread of [{ type: 'create' }, { type: 'continue', previous_message_id: 'msg_1' }]) {
      assert.throws(() => chatOf({ thread }), {
        code: 'unsupported_parameter',
        param: 'thread',
        extras: { details: { error_code: 'thread_unsupported_request', unsupported: ['thread'] } },
      });
    }
    assert.deepEqual(refusal({ thread: null, compaction: null }), ['none', null]);
    assert.deepEqual(refusal({ compaction: {} }), ['unsupported_parameter', 'compaction']);
  });

  it('and what an agent cannot help is no fault: orphans, empty answers, unknown fields, nulls', () => {
    for (const request of [
      { messages: [user([result({ tool_use_id: 'nobody' })])] },
      { messages: [user('a'), assistant([]), user('b')] },
      { messages: [user('a'), assistant([{ type: 'text', text: '' }]), user('b')] },
      { messages: [user('a'), assistant([use({})]), user('b')] },
      {
        messages: [
          user([
            { type: 'web_search_tool_result', tool_use_id: 'x', content: [] },
            { type: 'text', text: 'a' },
          ]),
        ],
      },
      {
        system: null,
        tools: null,
        tool_choice: null,
        thinking: null,
        metadata: null,
        stream: null,
        unknown: [1],
      },
      { metadata: { user_id: null }, stop_sequences: null, output_config: null, temperature: null },
    ]) {
      assert.deepEqual(refusal(request), ['none', null]);
    }
  });
});
