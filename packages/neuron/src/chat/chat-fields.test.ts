import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { type ChatRequest, chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { endOf, planThinking, planTools, refuseUnsupportedChat } from './chat-fields.ts';
import { readFixture, templateOf } from './conversations.test.kit.ts';

const page = readFileSync(new URL('../../../../docs/models.md', import.meta.url), 'utf8');

function read(fields: object): ChatRequest {
  return parseBody(chatRequestSchema, { model: 'm', messages: [{ role: 'user', content: 'x' }], ...fields });
}

function refusalOf(run: () => unknown): [string, string | null] {
  try {
    run();
  } catch (thrown) {
    assert.ok(thrown instanceof AppError, String(thrown));
    return [thrown.code, thrown.param];
  }
  throw new assert.AssertionError({ message: 'nothing was refused' });
}

/** Values for which the reference promises something that is not built. */
const refused: Readonly<Record<string, unknown>> = {
  verbosity: 'low',
  modalities: ['text', 'audio'],
  audio: { voice: 'alloy', format: 'mp3' },
  prediction: { type: 'content', content: 'x' },
  web_search_options: {},
  service_tier: 'flex',
  moderation: { type: 'x' },
  guided_json: {},
  structured_outputs: {},
  json_schema: {},
  chat_template: '{{ x }}',
  best_of: 2,
  mirostat: 1,
};

const accepted: Readonly<Record<string, unknown>> = {
  user: 'u',
  safety_identifier: 'u',
  metadata: { a: 'b' },
  store: true,
  prompt_cache_key: 'k',
  prompt_cache_retention: '24h',
  service_tier: 'auto',
  modalities: ['text'],
  verbosity: 'medium',
  some_field_of_another_server: 1,
  use_beam_search: false,
  best_of: 1,
};

const traits = (await templateOf(readFixture('templates/qwen3.jinja')).chosen(true)).traits;

function plan(fields: object, canReason = true, family = traits) {
  const request = read(fields);
  refuseUnsupportedChat(request);
  return planThinking(request, family, canReason);
}

describe('fields of a chat request', () => {
  it('that ask for what is not built are refused by name', () => {
    for (const [name, value] of Object.entries(refused)) {
      assert.deepEqual(
        refusalOf(() => plan({ [name]: value })),
        ['unsupported_parameter', name],
      );
    }
    const options = { stream_options: { include_obfuscation: true } };
    assert.deepEqual(
      refusalOf(() => plan(options)),
      ['unsupported_parameter', 'stream_options.include_obfuscation'],
    );
  });

  it('that change no answer are accepted, and null is absent', () => {
    plan(accepted);
    plan(Object.fromEntries(Object.keys({ ...refused, ...accepted }).map((name) => [name, null])));
  });

  it('are all on the page, with the verdict that holds', () => {
    const rows = [...page.matchAll(/^\| `(\w+)` \| (honoured|refused|accepted) \|/gm)];
    assert.ok(rows.length >= 36);
    for (const [, name = '', verdict] of rows) {
      if (verdict === 'refused') assert.ok(name in refused, `${name} is refused on the page`);
      if (verdict === 'accepted') assert.ok(name in accepted, `${name} is accepted on the page`);
      if (verdict === 'honoured') assert.ok(name in chatRequestSchema.shape, `${name} is read`);
    }
  });
});

describe('planTools()', () => {
  const tools = ['f', 'g'].map((name) => ({ type: 'function', function: { name } }));

  it('reads every form of tool_choice', () => {
    const choice = (tool_choice: unknown) => planTools(read({ tools, tool_choice }));
    assert.deepEqual(choice(undefined).choice, { mode: 'auto' });
    assert.deepEqual(choice('required').choice, { mode: 'required' });
    assert.deepEqual(choice('none').tools, []);
    assert.deepEqual(choice({ type: 'function', function: { name: 'g' } }).choice, {
      mode: 'named',
      name: 'g',
    });
    const allowed = { type: 'allowed_tools', allowed_tools: { mode: 'required', tools: [tools[1]] } };
    assert.deepEqual(choice(allowed).choice, { mode: 'required' });
    assert.deepEqual(
      choice(allowed).tools.map((tool) => tool.function?.name),
      ['g'],
    );
  });

  it('maps functions, one call at a time', () => {
    const legacy = planTools(read({ functions: [{ name: 'f' }], function_call: { name: 'f' } }));
    assert.deepEqual(
      [legacy.isLegacy, legacy.parallel, legacy.choice],
      [true, false, { mode: 'named', name: 'f' }],
    );
  });

  it('refuses what cannot be called', () => {
    for (const [fields, code, param] of [
      [{ tools, tool_choice: 'sometimes' }, 'invalid_request', 'tool_choice'],
      [
        { tools, tool_choice: { type: 'function', function: { name: 'h' } } },
        'invalid_request',
        'tool_choice',
      ],
      [{ tools, tool_choice: { type: 'function' } }, 'invalid_request', 'tool_choice.function.name'],
      [{ tools, tool_choice: { type: 'custom' } }, 'unsupported_parameter', 'tool_choice.type'],
      [{ tool_choice: 'required' }, 'invalid_request', 'tool_choice'],
      [{ tools: [...tools, tools[0]] }, 'invalid_request', 'tools.2.function.name'],
      [
        { tools: [{ type: 'function', function: { name: 'a b' } }] },
        'invalid_request',
        'tools.0.function.name',
      ],
      [{ tools: [{ type: 'web_search' }] }, 'unsupported_parameter', 'tools.0'],
      [{ functions: [{ name: 'f' }], function_call: 'must' }, 'invalid_request', 'function_call'],
      [{ functions: [{ name: 'f' }], tools }, 'invalid_request', 'functions'],
      [{ tools, function_call: 'none' }, 'invalid_request', 'function_call'],
      [{ function_call: { name: 'f' } }, 'invalid_request', 'function_call'],
      [{ functions: [{ name: 'f' }], tool_choice: 'none' }, 'invalid_request', 'tool_choice'],
      [{ functions: [{ name: 'f' }], parallel_tool_calls: true }, 'invalid_request', 'parallel_tool_calls'],
      [
        {
          tools,
          tool_choice: {
            type: 'allowed_tools',
            allowed_tools: { mode: 'auto', tools: [tools[0], { type: 'function', function: { name: 'h' } }] },
          },
        },
        'invalid_request',
        'tool_choice.allowed_tools.tools',
      ],
    ] as const) {
      assert.deepEqual(
        refusalOf(() => planTools(read(fields))),
        [code, param],
        JSON.stringify(fields),
      );
    }
  });
});

describe('planThinking()', () => {
  it('switches reasoning off by effort none, a budget of 0 or enable_thinking', () => {
    for (const fields of [
      { reasoning_effort: 'none' },
      { thinking_budget_tokens: 0 },
      { enable_thinking: false },
      { chat_template_kwargs: { enable_thinking: false } },
    ]) {
      assert.equal(plan(fields).kwargs.enable_thinking, false, JSON.stringify(fields));
    }
    assert.equal('enable_thinking' in plan({}).kwargs, false);
  });

  it('stops a model at once that has no switch and opens its block by itself', async () => {
    for (const name of ['gpt-oss', 'ministral-3']) {
      const { traits: own } = await templateOf(readFixture(`templates/${name}.jinja`)).chosen(true);
      for (const fields of [
        { reasoning_effort: 'none' },
        { thinking_budget: 0 },
        { enable_thinking: false },
        { chat_template_kwargs: { enable_thinking: false } },
      ]) {
        assert.equal(plan(fields, true, own).budget, 0, `${name} ${JSON.stringify(fields)}`);
      }
      assert.equal(plan({}, true, own).budget, null);
    }
  });

  it('gives effort to a template that has the word, and a budget to others', async () => {
    const gptOss = (await templateOf(readFixture('templates/gpt-oss.jinja')).chosen(true)).traits;
    assert.deepEqual(plan({ reasoning_effort: 'high' }, true, gptOss).kwargs, { reasoning_effort: 'high' });
    assert.equal(plan({ reasoning_effort: 'low' }, true, gptOss).budget, null);
    assert.equal(plan({ reasoning_effort: 'low' }).budget, 1024);
    assert.equal(plan({ reasoning_effort: 'high' }).budget, null);
    assert.equal(plan({ reasoning_effort: 'low', reasoning_budget: 7 }).budget, 7);
    assert.equal(plan({ reasoning_budget: -1 }).budget, null);
    const seed = (await templateOf(readFixture('templates/seed-oss.jinja')).chosen(true)).traits;
    assert.equal(plan({ thinking_budget: 512 }, true, seed).kwargs.thinking_budget, 512);
  });

  it('refuses what it cannot read, and effort where there is no reasoning', () => {
    assert.deepEqual(
      refusalOf(() => plan({ reasoning_effort: 'huge' })),
      ['invalid_request', 'reasoning_effort'],
    );
    assert.deepEqual(
      refusalOf(() => plan({ thinking_budget: 1.5 })),
      ['invalid_request', 'thinking_budget'],
    );
    assert.deepEqual(
      refusalOf(() => plan({ reasoning_effort: 'low' }, false)),
      ['unsupported_parameter', 'reasoning_effort'],
    );
    plan({ reasoning_effort: 'none' }, false);
  });
});

describe('endOf()', () => {
  const said = { role: 'assistant', content: 'One, two' };
  const messages = [{ role: 'user', content: 'Count' }, said];

  it('continues a last message of the assistant unless told otherwise', () => {
    assert.equal(endOf(read({ messages })), 'continue');
    assert.equal(endOf(read({ messages, continue_final_message: false })), 'generation_prompt');
    assert.equal(endOf(read({ messages, add_generation_prompt: true })), 'generation_prompt');
    assert.equal(endOf(read({})), 'generation_prompt');
    assert.equal(endOf(read({ add_generation_prompt: false })), 'nothing');
    const call = { ...said, tool_calls: [{ id: 'c', function: { name: 'f' } }] };
    assert.equal(endOf(read({ messages: [messages[0], call] })), 'generation_prompt');
  });

  it('refuses to continue what cannot be', () => {
    assert.deepEqual(
      refusalOf(() => endOf(read({ continue_final_message: true }))),
      ['invalid_request', 'continue_final_message'],
    );
  });
});
