/**
 * A gateway without a machine, whose providers are another one with real weights: once by OpenAI's API, once
 * by Anthropic's. The vendors' own clients see no difference.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import OpenAI from 'openai';
import { type Stack, startStack } from './stack.ts';

const greedy = { temperature: 0 } as const;
const weather = { role: 'user' as const, content: 'What is the weather in Paris?' };
const schema = {
  type: 'object' as const,
  properties: { location: { type: 'string' } },
  required: ['location'],
};
const name = 'get_weather';
const description = 'Get the weather of a city';
const result = '{"weather": "sunny"}';

let far: Stack;
let near: Gateway;
let openai: OpenAI;
let anthropic: Anthropic;
before(async () => {
  far = await startStack({ transport: 'thread', context: 16_384 });
  const { url } = far.gateway;
  const models = (id: string) => [{ id, upstream: 'cortex-tiny' }];
  near = await startGateway(
    cortexConfigSchema.parse({
      gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', stream_check_every: 1 },
      providers: [
        { name: 'by-chat', kind: 'openai', url: `${url}/v1`, models: models('chat') },
        { name: 'by-messages', kind: 'anthropic', url, models: models('messages') },
      ],
    }),
    modelsConfigSchema.parse({}),
    { log: silentLog },
  );
  openai = new OpenAI({ baseURL: `${near.url}/v1`, apiKey: 'none', maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: near.url, apiKey: 'none', maxRetries: 0 });
});
after(async () => {
  await near?.close();
  await far?.close();
});

for (const model of ['chat', 'messages']) {
  describe(`a provider by its ${model} API`, () => {
    for (const isStreamed of [false, true]) {
      test(`OpenAI's client: call, result, answer: ${isStreamed ? 'streamed' : 'whole'}`, async () => {
        const tools = [{ type: 'function' as const, function: { name, description, parameters: schema } }];
        const ask = async (messages: OpenAI.ChatCompletionMessageParam[]) => {
          const request = { model, max_tokens: 120, messages, tools, ...greedy };
          return isStreamed
            ? await openai.chat.completions.stream(request).finalChatCompletion()
            : await openai.chat.completions.create(request);
        };
        const [first] = (await ask([weather])).choices;
        assert.equal(first?.finish_reason, 'tool_calls');
        const [call] = first.message.tool_calls ?? [];
        assert.ok(call?.type === 'function');
        assert.deepEqual(
          [call.function.name, JSON.parse(call.function.arguments)],
          [name, { location: 'Paris' }],
        );
        const answered = { role: 'tool' as const, tool_call_id: call.id, content: result };
        const { role, content, tool_calls } = first.message;
        const [second] = (await ask([weather, { role, content, tool_calls: tool_calls ?? [] }, answered]))
          .choices;
        assert.equal(second?.finish_reason, 'stop');
        assert.match(second.message.content ?? '', /sunny/);
      });

      test(`Anthropic's client: call, result, answer: ${isStreamed ? 'streamed' : 'whole'}`, async () => {
        const tools = [{ name, description, input_schema: schema }];
        const ask = (messages: Anthropic.MessageParam[]): Promise<Anthropic.Message> => {
          const request = { model, max_tokens: 120, messages, tools, ...(greedy as object) };
          return isStreamed
            ? anthropic.messages.stream(request).finalMessage()
            : anthropic.messages.create(request);
        };
        const first = await ask([weather]);
        assert.equal(first.stop_reason, 'tool_use');
        const use = first.content.find((block) => block.type === 'tool_use');
        assert.ok(use);
        assert.deepEqual([use.name, use.input], [name, { location: 'Paris' }]);
        assert.ok(first.usage.input_tokens + (first.usage.cache_read_input_tokens ?? 0) > 20);
        const second = await ask([
          weather,
          { role: 'assistant', content: first.content },
          { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: result }] },
        ]);
        assert.equal(second.stop_reason, 'end_turn');
        assert.match(JSON.stringify(second.content), /sunny/);
      });
    }

    test("OpenAI's Responses, streamed", async () => {
      const stream = openai.responses.stream({ model, input: 'Say hello', max_output_tokens: 16, ...greedy });
      const response = await stream.finalResponse();
      assert.ok(response.output_text.length > 0);
      assert.ok((response.usage?.output_tokens ?? 0) > 0);
    });

    test('what comes through two gateways is what one gives', async () => {
      const request = { max_tokens: 40, messages: [weather], ...greedy };
      const direct = new OpenAI({ baseURL: `${far.gateway.url}/v1`, apiKey: 'none' });
      const [one, two] = await Promise.all([
        direct.chat.completions.create({ ...request, model: 'cortex-tiny' }),
        openai.chat.completions.create({ ...request, model }),
      ]);
      assert.equal(two.choices[0]?.message.content, one.choices[0]?.message.content);
      assert.equal(two.choices[0]?.finish_reason, one.choices[0]?.finish_reason);
      assert.equal(two.usage?.prompt_tokens, one.usage?.prompt_tokens);
    });
  });
}

test('no stream broke the grammar of its dialect', async () => {
  const metrics = await (await fetch(`http://127.0.0.1:${near.metricsPort}/metrics`)).text();
  assert.doesNotMatch(metrics, /^cortex_stream_protocol_errors_total\{/m);
});
