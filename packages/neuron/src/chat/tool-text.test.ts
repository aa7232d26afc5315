import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { conversations, readFixture, templateOf } from './conversations.test.kit.ts';
import { createChatParser } from './format/chat-parser.ts';
import { detectFormat } from './format/detect-format.ts';
import { withToolTexts } from './tool-text.ts';

/** The prompt of a conversation with a call, as a request makes it. */
async function promptOf(family: string): Promise<string> {
  const source = readFixture(`templates/${family}.jinja`);
  const template = templateOf(source);
  const format = detectFormat({ chatTemplate: source, namedTemplates: {} }, '');
  const { traits } = await template.chosen(true);
  const input = conversations.one_call!;
  return template.render({
    ...input,
    messages: withToolTexts(input.messages, input.tools ?? [], format, traits),
  });
}

describe('withToolTexts()', () => {
  it('writes calls of the past as the model writes them, where its template shows none', async () => {
    assert.match(
      await promptOf('lfm2'),
      /<\|tool_call_start\|>\[get_weather\(city="CITYPARIS", days=2\)\]<\|tool_call_end\|>/,
    );
    assert.match(
      await promptOf('granite-3.3'),
      /<\|tool_call\|>\[\{"name": "get_weather", "arguments": \{"city": "CITYPARIS"/,
    );
    assert.match(
      await promptOf('gemma'),
      /model\n\{"name": "get_weather", "parameters": \{"city": "CITYPARIS"/,
    );
  });

  it('writes what the same format reads as the same call', async () => {
    for (const family of ['lfm2', 'granite-3.3', 'phi-3.5', 'smollm3', 'gemma']) {
      const source = readFixture(`templates/${family}.jinja`);
      const format = detectFormat({ chatTemplate: source, namedTemplates: {} }, '');
      const { traits } = await templateOf(source).chosen(true);
      const { messages, tools = [] } = conversations.one_call!;
      const said = withToolTexts(messages, tools, format, traits).find(({ role }) => role === 'assistant');
      const parser = createChatParser(format, {
        tools: tools.map((tool) => tool.function),
        startsInReasoning: false,
        parallel: true,
        randomText: () => 'x'.repeat(24),
      });
      const events = [...parser.push(said?.content ?? ''), ...parser.finish()];
      const args = events.map((event) => (event.kind === 'call_arguments' ? event.text : '')).join('');
      assert.deepEqual(JSON.parse(args), { city: 'CITYPARIS', days: 2 }, family);
    }
  });

  it('tells the tools where the template does not, and only there', async () => {
    assert.match(await promptOf('gemma'), /SYSTEMTEXT\.\n\n[\s\S]*"name":"get_weather"[\s\S]*QUESTIONONE/);
    assert.match(await promptOf('phi-3.5'), /"name":"get_weather"/);
    const text = await promptOf('qwen3');
    assert.equal(text.split('"name": "get_weather", "description"').length, 2);
  });
});
