/** What is counted is what a request costs: real tokenizers, real templates, loaded or only on the disk. */
import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { testModel } from 'testkit/test-models';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const larger = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');

type Body = Readonly<Record<string, unknown>>;

const weather = {
  type: 'function',
  function: {
    name: 'weather',
    description: 'The weather of a town',
    parameters: { type: 'object', properties: { town: { type: 'string' } }, required: ['town'] },
  },
};
const call = { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"town":"Köln"}' } };
const user = { role: 'user', content: 'How warm is it in Köln? 🌡️' };
const conversations: Readonly<Record<string, Body>> = {
  'a question': { messages: [user] },
  'a system text, and parts': {
    messages: [
      { role: 'developer', content: 'Be brief.' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'One ' },
          { type: 'text', text: 'two' },
        ],
      },
    ],
  },
  tools: { messages: [user], tools: [weather] },
  'tools that may not be called': { messages: [user], tools: [weather], tool_choice: 'none' },
  'a call and its result': {
    messages: [
      user,
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_1', content: '21 °C' },
    ],
    tools: [weather],
  },
  'an answer to be continued': { messages: [user, { role: 'assistant', content: 'It is' }] },
  'variables of the template': {
    messages: [user],
    chat_template_kwargs: { enable_thinking: false },
  },
};

describe('POST /v1/chat/completions/input_tokens', () => {
  let neuron: Neuron;
  let dir: string;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'neuron-'));
    await writeFile(join(dir, 'text.gguf'), 'this is no model\n'.repeat(100));
    await copyFile(tiny, join(dir, 'second.gguf'));
    const dirs = [dir, ...(larger.skip === false ? [dirname(larger.file)] : [])];
    const config = neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      engine: { threads: 1, context: 2048 },
      cpu: { memory_mb: 4000 },
      models: { dirs, hf_cache: join(dir, 'no-hub') },
      default_models: [{ model_id: tiny }],
    });
    neuron = await startNeuron(config, { log: silentLog });
    await neuron.activated;
  });

  after(async () => {
    await neuron.close();
    await rm(dir, { recursive: true });
  });

  const post = (path: string, body: unknown): Promise<Response> =>
    fetch(`${neuron.url}${path}`, { method: 'POST', body: JSON.stringify(body) });

  async function count(body: Body): Promise<number> {
    const response = await post('/v1/chat/completions/input_tokens', body);
    assert.equal(response.status, 200, await response.clone().text());
    const answer = (await response.json()) as { object: string; input_tokens: number };
    assert.equal(answer.object, 'chat.completion.input_tokens');
    return answer.input_tokens;
  }

  async function promptTokens(body: Body, stream: boolean): Promise<number> {
    const more = { stream, max_tokens: 1, ...(stream ? { stream_options: { include_usage: true } } : {}) };
    const response = await post('/v1/chat/completions', { ...body, ...more });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    const answers = stream ? new SseParser().push(Buffer.from(text)).map(({ data }) => data) : [text];
    const whole = answers.filter((data) => data !== '[DONE]').map((data) => JSON.parse(data) as Answer);
    return whole.findLast(({ usage }) => usage)?.usage?.prompt_tokens ?? -1;
  }

  interface Answer {
    readonly usage?: { readonly prompt_tokens: number } | null;
  }

  for (const [name, body] of Object.entries(conversations)) {
    it(`counts ${name} as the answer's usage does, streamed and whole`, async () => {
      const request = { model: 'cortex-tiny', ...body };
      const counted = await count(request);
      assert.deepEqual(
        [await promptTokens(request, false), await promptTokens(request, true)],
        [counted, counted],
      );
      // the same weights under another name, which nobody has loaded
      assert.equal(await count({ ...request, model: 'second' }), counted);
    });
  }

  it('leaves a model that is not loaded where it is', async () => {
    await Promise.all(Array.from({ length: 24 }, () => count({ model: 'second', messages: [user] })));
    const listed = (await (await fetch(`${neuron.url}/models`)).json()) as { id: string; status: string }[];
    assert.equal(listed.find(({ id }) => id === 'second')?.status, 'available');
    assert.deepEqual(
      neuron.registry.loads().map(({ id }) => id),
      ['cortex-tiny'],
    );
  });

  it('counts a model of another tokenizer and template', { skip: larger.skip }, async () => {
    const id = basename(larger.file, '.gguf');
    const before = [];
    for (const body of Object.values(conversations)) before.push(await count({ model: id, ...body }));
    assert.equal((await post('/models/load', { model_id: id })).status, 200);
    for (const [at, body] of Object.values(conversations).entries()) {
      assert.equal(await promptTokens({ model: id, ...body }, false), before[at]);
    }
    assert.equal((await post('/models/unload', { model_id: id })).status, 200);
  });

  it('counts a prompt that no context would take', async () => {
    const counted = await count({
      model: 'cortex-tiny',
      messages: [{ role: 'user', content: 'word '.repeat(50_000) }],
    });
    assert.ok(counted > 50_000, `${counted}`);
  });

  const refusals: readonly (readonly [string, Body, number, string, string | null])[] = [
    ['an unknown model', { model: 'nobody', messages: [user] }, 404, 'model_not_found', 'model'],
    ['no messages', { model: 'second' }, 422, 'invalid_request_body', 'messages'],
    ['a file that is no model', { model: 'text', messages: [user] }, 422, 'invalid_model_file', null],
    [
      'an image',
      {
        model: 'second',
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }],
      },
      400,
      'vision_unsupported',
      'messages.0.content.0',
    ],
  ];
  for (const [name, body, status, code, param] of refusals) {
    it(`refuses ${name} with a sentence`, async () => {
      const response = await post('/v1/chat/completions/input_tokens', body);
      const { error } = (await response.json()) as {
        error: { code: string; param: string | null; message: string };
      };
      assert.deepEqual([response.status, error.code, error.param], [status, code, param], error.message);
    });
  }
});
