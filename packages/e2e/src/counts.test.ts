/** The official clients' token counts are the usage of the answers, real weights, streamed and whole. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { postJson, type Stack, startStack } from './stack.ts';

let stack: Stack;
let anthropic: Anthropic;
before(async () => {
  stack = await startStack({ transport: 'thread' });
  anthropic = new Anthropic({ baseURL: stack.gateway.url, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

type Message = Anthropic.MessageParam;
const messages: Message[] = [{ role: 'user', content: 'What is the capital of France?' }];

function inputTokens(usage: Anthropic.Usage | undefined): number {
  return (usage?.input_tokens ?? -1) + (usage?.cache_read_input_tokens ?? 0);
}

const texts: readonly (readonly [string, Pick<Anthropic.MessageCountTokensParams, 'system'>])[] = [
  ['a question', {}],
  ['a system text', { system: 'Be brief. 東京 🌡️' }],
  ['blocks', { system: [{ type: 'text', text: 'Be brief.' }] }],
];
for (const [name, more] of texts) {
  test(`anthropic: ${name} is counted as it is answered`, async () => {
    const request = { model: 'cortex-tiny', messages, ...more };
    const { input_tokens: counted } = await anthropic.messages.countTokens(request);
    assert.ok(counted > 0);
    const whole = await anthropic.messages.create({ ...request, max_tokens: 4 });
    assert.equal(inputTokens(whole.usage), counted);
    const streamed = await anthropic.messages.stream({ ...request, max_tokens: 4 }).finalMessage();
    assert.equal(inputTokens(streamed.usage), counted);
  });
}

test('chat: tools are counted as they are answered, streamed and whole', async () => {
  const body = {
    model: 'cortex-tiny',
    messages,
    tools: [
      {
        type: 'function',
        function: { name: 'capital', parameters: { type: 'object', properties: { of: { type: 'string' } } } },
      },
    ],
  };
  const counted = (await (await postJson(`${stack.baseUrl}/chat/completions/input_tokens`, body)).json()) as {
    input_tokens: number;
  };
  const whole = (await (
    await postJson(`${stack.baseUrl}/chat/completions`, { ...body, max_tokens: 2 })
  ).json()) as { usage: { prompt_tokens: number } };
  const stream = { ...body, max_tokens: 2, stream: true, stream_options: { include_usage: true } };
  const streamed = await (await postJson(`${stack.baseUrl}/chat/completions`, stream)).text();
  assert.equal(whole.usage.prompt_tokens, counted.input_tokens);
  assert.match(streamed, new RegExp(`"prompt_tokens":${counted.input_tokens},`));
});
