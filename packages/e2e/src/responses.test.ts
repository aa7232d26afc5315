/** The Responses API with OpenAI's own client, through gateway and neuron. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { faultOfResponse } from 'cortex-gateway/dialects/wire-grammar/responses-grammar';
import { checkResponsesStream } from 'cortex-gateway/dialects/wire-grammar/responses-stream.test.kit';
import OpenAI from 'openai';
import type {
  FunctionTool,
  ResponseInputItem,
  ResponseStreamEvent,
} from 'openai/resources/responses/responses';
import { postJson, type Stack, startStack } from './stack.ts';

const model = 'cortex-tiny';
const question = 'What is the capital of France?';
const weather: FunctionTool = {
  type: 'function',
  name: 'get_weather',
  description: 'Get the weather of a city',
  parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
  strict: false,
};
const askWeather = 'What is the weather in Paris?';

let stack: Stack;
let openai: OpenAI;
before(async () => {
  stack = await startStack({ transport: 'thread' });
  openai = new OpenAI({ baseURL: stack.baseUrl, apiKey: 'none', maxRetries: 0 });
});
after(() => stack?.close());

describe('responses', () => {
  test('create answers, whole and as a stream, with the same words', async () => {
    const whole = await openai.responses.create({ model, input: question, temperature: 0 });
    assert.equal(faultOfResponse({ ...whole }), null);
    assert.match(whole.output_text, /Paris/);
    assert.ok(whole.usage!.input_tokens > 0 && whole.usage!.output_tokens > 0);
    const body = { model, input: question, temperature: 0, stream: true };
    const raw = await postJson(`${stack.baseUrl}/responses`, body);
    const { response, events } = checkResponsesStream(Buffer.from(await raw.arrayBuffer()));
    assert.deepEqual(
      response.output.map((item) => item.type === 'message' && item.content),
      whole.output.map((item) => item.type === 'message' && item.content),
    );
    assert.ok(events.filter(({ type }) => type === 'response.output_text.delta').length > 1);
  });

  test('the streaming helper hears the words and gives the response', async () => {
    const stream = openai.responses.stream({ model, input: question, temperature: 0 });
    let text = '';
    stream.on('response.output_text.delta', ({ delta }) => {
      text += delta;
    });
    const final = await stream.finalResponse();
    assert.match(text, /Paris/);
    assert.equal(final.output_text, text);
    assert.equal(final.status, 'completed');
  });

  for (const stored of [true, false]) {
    test(`ask, call, result, answer: ${stored ? 'by previous_response_id' : 'with all items sent'}`, async () => {
      const base = { model, temperature: 0, max_output_tokens: 120, tools: [weather], store: stored };
      const first = await openai.responses.stream({ ...base, input: askWeather }).finalResponse();
      const call = first.output.find((item) => item.type === 'function_call');
      assert.ok(call?.type === 'function_call', JSON.stringify(first.output));
      assert.equal(call.name, 'get_weather');
      assert.notEqual(call.id, call.call_id);
      assert.deepEqual(JSON.parse(call.arguments), { location: 'Paris' });
      const output: ResponseInputItem = {
        type: 'function_call_output',
        call_id: call.call_id,
        output: '{"weather": "sunny"}',
      };
      const history: ResponseInputItem[] = [{ role: 'user', content: askWeather }, ...(first.output as [])];
      const second = await openai.responses.create(
        stored
          ? { ...base, input: [output], previous_response_id: first.id }
          : { ...base, input: [...history, output] },
      );
      assert.match(second.output_text, /sunny/);
    });
  }

  test('a custom tool that must be called gets text, not JSON', async () => {
    const stream = openai.responses.stream({
      model,
      input: 'Write hello.',
      tools: [{ type: 'custom', name: 'write', description: 'Writes text' }],
      tool_choice: { type: 'custom', name: 'write' },
      parallel_tool_calls: false,
      max_output_tokens: 300,
      temperature: 0,
    });
    const { output, status } = await stream.finalResponse();
    const call = output.find((item) => item.type === 'custom_tool_call');
    assert.ok(call?.type === 'custom_tool_call', JSON.stringify(output));
    assert.equal(call.name, 'write');
    if (status === 'completed') assert.doesNotMatch(call.input, /^\{"input"/);
  });

  test('parse gives an object of the schema, at any draw', async () => {
    const schema = {
      type: 'object',
      properties: { city: { type: 'string', enum: ['Paris', 'Rome'] }, big: { type: 'boolean' } },
      required: ['city', 'big'],
      additionalProperties: false,
    };
    const format = { type: 'json_schema' as const, name: 'city', schema, strict: true };
    const response = await openai.responses.parse({ model, input: question, text: { format } });
    const parsed = JSON.parse(response.output_text) as { city: string; big: boolean };
    assert.ok(['Paris', 'Rome'].includes(parsed.city));
    assert.equal(typeof parsed.big, 'boolean');
  });

  test('retrieve, its stream, input items, cancel and delete', async () => {
    const { id, output_text: text } = await openai.responses.create({
      model,
      input: question,
      temperature: 0,
    });
    const again = await openai.responses.retrieve(id);
    assert.equal(again.output_text, text);
    const stream = openai.responses.stream({ response_id: id });
    assert.equal((await stream.finalResponse()).output_text, text);
    const items: unknown[] = [];
    for await (const item of openai.responses.inputItems.list(id, { limit: 1 })) items.push(item);
    assert.equal(items.length, 1);
    await assert.rejects(openai.responses.cancel(id), OpenAI.BadRequestError);
    await openai.responses.delete(id);
    await assert.rejects(openai.responses.retrieve(id), OpenAI.NotFoundError);
    const request = openai.responses.create({ model, input: 'x', previous_response_id: id });
    await assert.rejects(request, (error: unknown) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, 'previous_response_not_found');
      return true;
    });
  });

  test('in the background: polled, read again from any event on, and cancelled', async () => {
    const base = { model, input: question, temperature: 0, background: true };
    const isOpen = (status: string | undefined) => status === 'queued' || status === 'in_progress';
    let polled = await openai.responses.create(base);
    assert.ok(isOpen(polled.status) && polled.background === true);
    while (isOpen(polled.status)) polled = await openai.responses.retrieve(polled.id);
    assert.equal(polled.status, 'completed');
    assert.match(polled.output_text, /Paris/);

    const live = await openai.responses.create({ ...base, stream: true });
    const events: ResponseStreamEvent[] = [];
    let id = '';
    for await (const event of live) {
      if (event.type === 'response.created') id = event.response.id;
      events.push(event);
      // the client goes; the answer does not end
      if (event.type === 'response.output_text.delta') break;
    }
    const last = events.at(-1)?.sequence_number ?? -1;
    for await (const event of await openai.responses.retrieve(id, { stream: true, starting_after: last })) {
      assert.equal(event.sequence_number, events.length);
      events.push(event);
    }
    const end = events.at(-1);
    assert.ok(end?.type === 'response.completed' && end.response.id === id);
    const text = events
      .map((event) => (event.type === 'response.output_text.delta' ? event.delta : ''))
      .join('');
    assert.equal(text, polled.output_text);
    assert.equal((await openai.responses.stream({ response_id: id }).finalResponse()).output_text, text);

    // an answer that goes on for long: 2,000 tokens of a list that may not end
    const schema = {
      type: 'object',
      properties: { a: { type: 'array', items: { type: 'string' }, minItems: 5000 } },
    };
    const format = { type: 'json_schema' as const, name: 'n', schema: { ...schema, required: ['a'] } };
    const long = await openai.responses.create({ ...base, text: { format } });
    const cancelled = await openai.responses.cancel(long.id);
    assert.equal(cancelled.status, 'cancelled');
    assert.equal((await openai.responses.retrieve(long.id)).status, 'cancelled');
    assert.equal((await openai.responses.cancel(long.id)).status, 'cancelled');
  });

  test('all that Codex sends with every request is taken', async () => {
    const { status, output } = await openai.responses.create({
      ...{ model, store: false, parallel_tool_calls: true, tool_choice: 'auto', temperature: 0 },
      instructions: 'You are a helpful assistant.',
      input: [
        { role: 'developer', content: [{ type: 'input_text', text: 'Be helpful.' }] },
        {
          role: 'user',
          content: [{ type: 'input_text', text: '<environment_context></environment_context>' }],
        },
        { role: 'user', content: [{ type: 'input_text', text: askWeather }] },
      ],
      tools: [
        { type: 'namespace', name: 'mcp__weather', description: 'Weather', tools: [weather] },
        { type: 'web_search' },
      ],
      reasoning: { effort: 'none', summary: 'auto' },
      include: ['reasoning.encrypted_content'],
      ...{
        prompt_cache_key: 'k',
        text: { verbosity: 'low' },
        service_tier: 'auto',
        client_metadata: { a: 'b' },
      },
      max_output_tokens: 200,
    } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    assert.ok(status === 'completed' || status === 'incomplete');
    for (const item of output) {
      if (item.type === 'function_call') {
        assert.deepEqual([item.namespace, item.name], ['mcp__weather', 'get_weather']);
      }
    }
  });

  test('tools and a schema together give a call or an object', async () => {
    const schema = { type: 'object', properties: { a: { type: 'boolean' } }, required: ['a'] };
    const format = { type: 'json_schema' as const, name: 'n', schema, strict: false };
    for (const input of [askWeather, question]) {
      const body = { model, input, tools: [weather], text: { format }, max_output_tokens: 300 };
      const { output, output_text: text } = await openai.responses.create(body);
      const call = output.find((item) => item.type === 'function_call');
      if (call?.type === 'function_call') JSON.parse(call.arguments);
      else assert.equal(typeof (JSON.parse(text) as { a: unknown }).a, 'boolean');
    }
  });

  test('a conversation that is too long is refused, or cut from the front where that is asked', async () => {
    const long: ResponseInputItem[] = [];
    for (let i = 0; i < 60; i++) {
      long.push({ role: 'user', content: `Remember the number ${i}, and that Paris is a city. `.repeat(4) });
      long.push({ role: 'assistant', content: `I will remember ${i}.` });
    }
    const input: ResponseInputItem[] = [...long, { role: 'user', content: question }];
    await assert.rejects(openai.responses.create({ model, input }), (error: unknown) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, 'context_length_exceeded');
      return true;
    });
    const cut = await openai.responses.create({ model, input, truncation: 'auto', max_output_tokens: 50 });
    assert.ok(
      cut.usage!.input_tokens > 900 && cut.usage!.input_tokens <= 2048,
      String(cut.usage!.input_tokens),
    );
  });

  test('the warm-up of an editor, one token of nothing, is an answer', async () => {
    const response = await openai.responses.create({ model, input: '', max_output_tokens: 1 });
    assert.equal(response.status, 'incomplete');
    assert.deepEqual(response.incomplete_details, { reason: 'max_output_tokens' });
  });

  test('a conversation is compacted, and goes on from what is left', async () => {
    const input: ResponseInputItem[] = [
      { role: 'user', content: question },
      { role: 'assistant', content: 'Paris.' },
    ];
    const compacted = await openai.responses.compact({ model, input });
    assert.equal(compacted.object, 'response.compaction');
    assert.equal(compacted.output[0]?.type, 'compaction');
    assert.ok(compacted.usage.input_tokens > 0);
    const next = [...compacted.output, { role: 'user', content: 'And?' }] as ResponseInputItem[];
    const response = await openai.responses.create({ model, input: next, max_output_tokens: 20 });
    assert.ok(response.usage!.output_tokens > 0);
  });

  test('an unknown model is a NotFoundError with its code', async () => {
    await assert.rejects(openai.responses.create({ model: 'nope', input: 'x' }), (error: unknown) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, 'model_not_found');
      return true;
    });
  });
});
