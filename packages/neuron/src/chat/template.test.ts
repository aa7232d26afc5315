import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AppError } from 'cortex-core/wire/errors';
import type { ChatMessage } from 'cortex-core/wire/openai';
import { conversations, families, readFixture, templateOf, wordsOfAll } from './conversations.test.kit.ts';
import { detectFormat } from './format/detect-format.ts';
import { type PlainMessage, toPlainMessages } from './messages.ts';
import { ChatTemplate } from './template.ts';

const { families: recorded } = JSON.parse(readFixture('recordings.json')) as {
  families: Record<string, Record<string, { text?: string; error?: string }>>;
};

function plain(...messages: unknown[]): PlainMessage[] {
  return toPlainMessages(messages as ChatMessage[], { modelId: 'm', capabilities: ['text'] });
}

function from(family: string): ChatTemplate {
  return templateOf(readFixture(`templates/${family}.jinja`));
}

function ask(template: ChatTemplate, messages: readonly PlainMessage[], kwargs = {}): Promise<string> {
  return template.render({ messages, end: 'generation_prompt', kwargs });
}

/** One call a turn, each with its result. */
const wordsOfSplit = [...wordsOfAll.slice(0, 7), 'RESULTROME', 'CITYBONN', 'RESULTBONN'];

/** These show of a turn with calls the calls alone. */
const dropsTextOfCalls = new Set(['hermes', 'llama-3', 'mistral-nemo', 'mistral-small-3.2']);

/** This template puts the system text into the last user turn; its makers trained it so. */
const movesSystem = new Set(['mistral-nemo']);

/** Python's Jinja cannot write a generator as JSON; the model was meant to see a list. */
const pythonFails = new Set(['deepseek-r1']);

/** By the family that answers of such a model are read as. */
const templatesOf = new Map<string, string[]>();
for (const name of families) {
  const texts = { chatTemplate: readFixture(`templates/${name}.jinja`), namedTemplates: {} };
  const family = detectFormat(texts, '').name;
  templatesOf.set(family, [...(templatesOf.get(family) ?? []), name]);
}

for (const [family, names] of templatesOf) {
  it(`${family}: render`, async () => {
    for (const name of names) await rendersAll(name);
  });
}

/** Every word of the conversation in its order, and every byte as Python's Jinja writes it. */
async function rendersAll(name: string): Promise<void> {
  const template = from(name);
  const all = await template.render(conversations.two_calls!);
  const { toolsIn, parallelCalls, callArguments } = (await template.chosen(true)).traits;
  const isSplit = !parallelCalls && callArguments !== null;
  const words: readonly string[] = isSplit ? wordsOfSplit : wordsOfAll;
  let at = -1;
  for (const word of movesSystem.has(name) ? words.slice(1) : words) {
    const next = all.indexOf(word, at + 1);
    assert.ok(next !== -1, `${name}: ${word} is missing or out of order in ${all}`);
    at = next;
  }
  if (toolsIn !== null) assert.match(all, /get_weather[\s\S]*get_time/);
  for (const [conversation, input] of Object.entries(conversations)) {
    const expected = recorded[name]?.[conversation];
    if (expected?.text === undefined) assert.ok(pythonFails.has(name), `${name}: ${expected?.error}`);
    else assert.equal(await template.render(input), expected.text, `${name}: ${conversation}`);
  }
}

describe('ChatTemplate', () => {
  it('cuts a beginning token that the tokenizer adds itself', async () => {
    const facts = { chatTemplate: '{{ bos_token }}{{ messages[0].content }}{{ x }}', namedTemplates: {} };
    const template = new ChatTemplate(
      { ...facts, bosToken: '<s>', eosToken: null, addBos: true },
      { modelId: 'm', hasChatMl: async () => false, now: () => new Date(0) },
    );
    const kwargs = { x: '!', bos_token: 'evil', messages: [], tools: 'evil' };
    assert.equal(await ask(template, plain({ role: 'user', content: 'hi' }), kwargs), 'hi!');
  });

  it('leaves enable_thinking undefined unless it is given', async () => {
    const own = templateOf(
      '{{ messages[0].content }}{{ enable_thinking is defined }}{{ thinking is defined }}',
    );
    const user = plain({ role: 'user', content: '' });
    assert.equal(await ask(own, user), 'FalseFalse');
    assert.equal(await ask(own, user, { enable_thinking: false }), 'TrueFalse');
    const deepseek = from('deepseek-v3.1');
    const on = await ask(deepseek, user, { enable_thinking: true });
    assert.match(on, /<think>$/);
    assert.match(await ask(deepseek, user, { enable_thinking: false }), /<\/think>$/);
  });

  it('takes the clock for dates', async () => {
    assert.match(
      await ask(from('llama-3'), plain({ role: 'user', content: 'x' })),
      /Today Date: 25 Nov 2026/,
    );
  });

  it('names template, line and reason when it refuses or cannot be read', async () => {
    const failure = async (source: string): Promise<AppError> => {
      let error: unknown;
      await ask(templateOf(source), plain({ role: 'user', content: 'hi' })).catch((thrown) => {
        error = thrown;
      });
      return error as AppError;
    };
    const refused = await failure("x\n{{ raise_exception('roles must alternate') }}");
    assert.equal(refused.code, 'template_render_failed');
    assert.equal(
      refused.message,
      'the chat template (default) of model "m" refused these messages at line 2: roles must alternate',
    );
    assert.equal(refused.extras.template_line, 2);
    assert.match((await failure('\n\n{% if %}')).message, /cannot be read at line 3/);
  });

  it('uses the tool_use template when there are tools', async () => {
    const template = new ChatTemplate(
      {
        chatTemplate: 'plain',
        namedTemplates: { tool_use: 'with tools' },
        bosToken: null,
        eosToken: null,
        addBos: false,
      },
      { modelId: 'm', hasChatMl: async () => false, now: () => new Date(0) },
    );
    assert.equal(await template.render(conversations.chat!), 'plain');
    assert.equal(await template.render(conversations.tools!), 'with tools');
  });

  it('takes ChatML without a template only where the vocabulary has it', async () => {
    const facts = { chatTemplate: null, namedTemplates: {}, bosToken: null, eosToken: null, addBos: false };
    const make = (hasChatMl: boolean) => {
      return new ChatTemplate(facts, {
        modelId: 'm',
        hasChatMl: async () => hasChatMl,
        now: () => new Date(0),
      });
    };
    const user = plain({ role: 'user', content: 'hi' });
    assert.equal(await ask(make(true), user), '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
    await assert.rejects(ask(make(false), user), /no chat template/);
  });

  it('continues the last message, and keeps its trailing blanks', async () => {
    const messages = plain({ role: 'user', content: 'Count' }, { role: 'assistant', content: 'One, two, ' });
    for (const family of ['qwen2.5', 'mistral-nemo', 'gpt-oss', 'llama-3', 'granite-4.0', 'gemma']) {
      const text = await from(family).render({ messages, end: 'continue' });
      assert.match(text, /One, two, $/, family);
      assert.doesNotMatch(text, /cortex/);
    }
  });
});

describe('a conversation that the template would refuse or cut', () => {
  it('keeps a system turn in the middle where it was said', async () => {
    const messages = plain(
      { role: 'system', content: 'S1' },
      { role: 'user', content: 'U1' },
      { role: 'assistant', content: 'A1' },
      { role: 'user', content: 'U2' },
      { role: 'system', content: 'S2' },
    );
    for (const family of families) {
      const text = await ask(from(family), messages);
      const words = movesSystem.has(family) ? ['U1', 'A1', 'S1', 'U2', 'S2'] : ['S1', 'U1', 'A1', 'U2', 'S2'];
      const at = words.map((word) => text.indexOf(word));
      assert.ok(
        at.every((each, index) => each > (at[index - 1] ?? -1)),
        `${family}: ${text}`,
      );
    }
  });

  it('loses no turn of several in a row', async () => {
    const messages = plain(
      { role: 'system', content: 'S1' },
      { role: 'developer', content: 'S2' },
      { role: 'user', content: 'U1' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'U' },
          { type: 'text', text: '2' },
        ],
      },
      { role: 'assistant', content: 'A1' },
      { role: 'assistant', content: 'A2' },
      { role: 'user', content: 'U3' },
    );
    for (const family of families) {
      const text = await ask(from(family), messages);
      for (const word of ['S1', 'S2', 'U1', 'U2', 'A1', 'A2', 'U3'])
        assert.ok(text.includes(word), `${family}: ${text}`);
    }
  });

  it('gives Mistral ids of nine letters, the same in call and result', async () => {
    const text = await from('mistral-nemo').render(conversations.one_call!);
    const ids = [...text.matchAll(/"(?:call_)?id": "(\w+)"/g)].map((match) => match[1]);
    assert.equal(ids.length, 2);
    assert.equal(ids[0], ids[1]);
    assert.equal(ids[0]?.length, 9);
  });

  it('names the calls of Kimi by their ids, whatever ids the client has', async () => {
    const text = await from('kimi-k2').render(conversations.two_calls!);
    assert.match(
      text,
      /tool_call_begin\|>functions\.get_weather:0<[\s\S]*Return of functions\.get_weather:0/,
    );
    assert.match(text, /functions\.get_weather:1<[\s\S]*functions\.get_weather:2</);
  });

  it('writes parallel calls one after the other where only one may stand in a turn', async () => {
    const text = await from('llama-3').render(conversations.two_calls!);
    assert.match(text, /CITYROME[\s\S]*RESULTROME[\s\S]*CITYBONN[\s\S]*RESULTBONN/);
  });

  it('gives arguments as the template reads them, not as text in text', async () => {
    for (const family of families) {
      const text = await from(family).render(conversations.one_call!);
      assert.ok(!text.includes('\\"city\\"') && !text.includes("{'city'"), `${family}: ${text}`);
    }
  });

  it('keeps reasoning of the current turn where the template shows any', async () => {
    for (const family of [
      'qwen3',
      'gpt-oss',
      'glm-4.6',
      'kimi-k2',
      'minimax-m2',
      'seed-oss',
      'ministral-3',
    ]) {
      assert.match(await from(family).render(conversations.one_call!), /REASONONE/, family);
    }
    // and drops it where the model was trained without
    assert.doesNotMatch(await from('qwen3').render(conversations.chat!), /REASONONE/);
    assert.doesNotMatch(await from('qwen2.5').render(conversations.one_call!), /REASONONE/);
  });

  it('takes an empty list of tools for none where only that renders', async () => {
    const source = '{% for t in tools %}{{ t }}{% endfor %}{{ messages[0].content }}';
    assert.equal(await ask(templateOf(source), plain({ role: 'user', content: 'x' })), 'x');
  });

  it('never loses what was said beside the reasoning', async () => {
    const said = { role: 'assistant', content: 'SAIDTEXT', reasoning_content: 'WHY' };
    const call = { id: 'call00001', function: { name: 'f', arguments: '{"a":1}' } };
    const messages = plain(
      { role: 'user', content: 'x' },
      { ...said, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call00001', content: 'r' },
    );
    for (const family of families) {
      const text = await ask(from(family), messages);
      assert.ok(text.includes('SAIDTEXT') || dropsTextOfCalls.has(family), `${family}: ${text}`);
    }
  });

  it('renders parts and a string to the same bytes', async () => {
    for (const family of families) {
      const parts = plain({ role: 'user', content: [{ type: 'text', text: 'same' }] });
      const text = plain({ role: 'user', content: 'same' });
      assert.equal(await ask(from(family), parts), await ask(from(family), text));
    }
  });

  it('gives parts to a template that reads nothing else', async () => {
    const source = '{% for m in messages %}{% for p in m.content %}{{ p.text }};{% endfor %}{% endfor %}';
    assert.equal(await ask(templateOf(source), plain({ role: 'user', content: 'a' })), 'a;');
  });
});
