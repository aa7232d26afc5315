/** Whatever a body says, the answer is a 4xx with the field it is about, and the next request is answered. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const context = 256;
const mib = 1024 * 1024;
const chat = { model: 'cortex-tiny', messages: [{ role: 'user', content: 'hello' }], max_tokens: 2 };
const completion = { model: 'cortex-tiny', prompt: 'hello', max_tokens: 2 };

/** Raw JSON values per field, as no serialiser would write them, that both endpoints refuse. */
const badFields: Readonly<Record<string, readonly string[]>> = {
  temperature: ['1e999', '-1e999', '-0.1', '101', '"NaN"', '"Infinity"', '"1"', 'true', '[]', '{}'],
  top_p: ['1e999', '-0.1', '1.1', '"NaN"', '[0.5]'],
  top_k: ['1e999', '-2', '1.5', '2147483648', '1e300', '"40"'],
  min_p: ['-0.1', '1.1', '"0"'],
  typical_p: ['-0.1', '1.1', '"0"'],
  top_n_sigma: ['-1.5', '101', '"0"'],
  xtc_probability: ['-0.1', '1.1', '"0"'],
  xtc_threshold: ['-0.1', '1.1', '"0"'],
  repeat_penalty: ['0', '-1', '101', '1e999', '"1"'],
  repetition_penalty: ['0', '-1', '101', '1e999', '"1"'],
  repeat_last_n: ['-2', '0.5', '2147483648', '"64"'],
  frequency_penalty: ['-101', '101', '1e999', '"1"'],
  presence_penalty: ['-101', '101', '1e999', '"1"'],
  dry_multiplier: ['-1', '101', '"1"'],
  dry_base: ['0.5', '101', '"1"'],
  dry_allowed_length: ['-1', '0.5', '2147483648', '"1"'],
  dry_penalty_last_n: ['-2', '0.5', '2147483648', '"1"'],
  dry_sequence_breakers: ['"x"', '[1]', list('"x"', 17), list('"x"', 200_000), `["${'x'.repeat(300)}"]`],
  seed: ['0.5', '"x"', '"1"', '1e300', '9007199254740993', 'true', '[1]'],
  logit_bias: [
    '7',
    '"x"',
    '[1]',
    '[[1]]',
    '[[1,2,3]]',
    '[["hello",1]]',
    '{"x":1}',
    '{"-1":1}',
    '{"1.5":1}',
    '{"99999999":1}',
    '{"2147483648":1}',
    '{"99999999999":1}',
    '{"1":"x"}',
    '{"1":null}',
    '{"1":1e999}',
    '{"1":1e300}',
    '{"1":true}',
    `{${range(5000, (each) => `"${each}":1`)}}`,
    `{${range(600_000, (each) => `"${each}":1`)}}`,
  ],
  stop: [
    '7',
    '[7]',
    '{}',
    '"\\udd8a"',
    '["\\ud83e"]',
    list('"x"', 65),
    list('"x"', 10_000),
    list('7', 400_000),
    `"${'x'.repeat(5000)}"`,
  ],
  max_tokens: ['-1', '0.5', '1e999', '2147483648', '1e300', '"1"', '[1]'],
  n: ['0', '-1', '1.5', '129', '"1"'],
  grammar: [
    '7',
    '[]',
    '"root ::= ("',
    '"a ::= \\"b\\""',
    '"root ::= root"',
    `"root ::= ${'('.repeat(100_000)}"`,
    '"root ::= \\"a\\"{9,1}"',
    `"root ::= ${'x '.repeat(200_000)}"`,
  ],
  ignore_eos: ['"yes"', '1', '[]'],
  mirostat: ['1', '2'],
  dynatemp_range: ['0.5'],
};

const badChatFields: Readonly<Record<string, readonly string[]>> = {
  messages: ['[]', nested(129), nested(100_000)],
  top_logprobs: ['-1', '21', '0.5', '"1"', '5'],
  logprobs: ['1', '"yes"'],
  max_completion_tokens: ['-1', '0.5', '2147483648', '"1"'],
};

const badCompletionFields: Readonly<Record<string, readonly string[]>> = {
  prompt: [
    'null',
    '7',
    '{}',
    '""',
    '[]',
    '[[]]',
    '[""]',
    '[null]',
    '[-1]',
    '[1.5]',
    '[1e999]',
    '["x",1]',
    '[1,"x"]',
    '[[1],2]',
    '[2048]',
    '[2147483648]',
    '[4294967301]',
    '[1,2,99999999999999999999]',
    nested(5000),
  ],
  logprobs: ['-1', '21', '0.5', 'true'],
  best_of: ['2', '0'],
  echo: ['7', '"yes"'],
  suffix: ['"after"', '7'],
};

/** A wrong shape is 422 with the path; the request is not even one. */
const badShapes: readonly (readonly [string, string])[] = [
  ['[]', ''],
  ['null', ''],
  ['7', ''],
  ['"text"', ''],
  ['{}', 'model'],
  ['{"model":7}', 'model'],
  ['{"model":"cortex-tiny","messages":7}', 'messages'],
  ['{"model":"cortex-tiny","messages":[7]}', 'messages.0'],
  ['{"model":"cortex-tiny","messages":[{"role":"user","content":7}]}', 'messages.0.content'],
  [`{"model":"cortex-tiny","messages":${list('7', 300_000)}}`, 'messages.0'],
  ['{"model":"cortex-tiny","messages":[{"role":"user","content":"x"}],"stream":"yes"}', 'stream'],
];

function list(item: string, count: number): string {
  return `[${Array(count).fill(item).join(',')}]`;
}

function range(count: number, write: (each: number) => string): string {
  return Array.from({ length: count }, (_, each) => write(each)).join(',');
}

function nested(depth: number): string {
  return '['.repeat(depth) + ']'.repeat(depth);
}

for (const worker of ['thread', 'process'] as const) {
  describe(`a neuron whose owner is a ${worker}, asked for the impossible`, () => {
    let neuron: Neuron;

    before(async () => {
      const config = neuronConfigSchema.parse({
        listen: '127.0.0.1',
        port: 0,
        device_worker: worker,
        engine: { threads: 1, context },
        cpu: { memory_mb: 2000 },
        models: { hf_cache: join(tmpdir(), 'no-such-hub') },
        default_models: [{ model_id: tiny }],
      });
      neuron = await startNeuron(config, { log: silentLog });
      await neuron.activated;
    });
    after(() => neuron.close());

    const post = (path: string, body: string | Buffer): Promise<Response> =>
      fetch(`${neuron.url}${path}`, { method: 'POST', body });

    const refused = async (path: string, body: string, status: number, param: string): Promise<string> => {
      const response = await post(path, body);
      const answer = await response.text();
      const what = `${path} ${param}: ${body.slice(0, 120)} -> ${response.status} ${answer.slice(0, 300)}`;
      assert.equal(response.status, status, what);
      assert.match(response.headers.get('content-type') ?? '', /json/, what);
      const { error } = JSON.parse(answer) as { error: { param: string | null; message: string } };
      // An item of a list has its place after the field's name.
      assert.ok((error.param ?? '') === param || error.param?.startsWith(`${param}.`), what);
      assert.ok(error.message.length < 300, what);
      return error.message;
    };

    const stillAnswers = async (): Promise<void> => {
      for (const [path, body] of [
        ['/v1/chat/completions', chat],
        ['/v1/completions', completion],
      ] as const) {
        const response = await post(path, JSON.stringify(body));
        assert.equal(response.status, 200, await response.text());
      }
      assert.deepEqual(
        neuron.registry.loads().map(({ in_flight, queue_depth }) => ({ in_flight, queue_depth })),
        [{ in_flight: 0, queue_depth: 0 }],
      );
    };

    it('names the field, streamed and whole, and answers the next', async () => {
      for (const [path, good, fields] of [
        ['/v1/chat/completions', chat, { ...badFields, ...badChatFields }],
        ['/v1/completions', completion, { ...badFields, ...badCompletionFields }],
      ] as const) {
        for (const [field, values] of Object.entries(fields)) {
          const { [field as 'model']: _, ...rest } = good;
          for (const value of values) {
            const body = `${JSON.stringify(rest).slice(0, -1)},"${field}":${value}`;
            for (const end of ['}', ',"stream":true}']) await refused(path, body + end, 400, field);
          }
        }
        await stillAnswers();
      }
    });

    it('refuses a wrong shape with its path', async () => {
      for (const [body, param] of badShapes) await refused('/v1/chat/completions', body, 422, param);
      for (const body of ['', '{', '{"model":"cortex-tiny","temperature":NaN}', '{"a":1}x', '\0']) {
        assert.equal((await post('/v1/chat/completions', body)).status, 400, body);
      }
      await stillAnswers();
    });

    it('refuses a path, or a file, as the draft model of a load', async () => {
      const outside = ['/etc/passwd', '../secret', 'a/../../b', '~/x', 'C:\\x', 'x\0', 'file:/etc/x', tiny];
      for (const draft_model of [...outside, 'small.gguf', 'org/small.GGUF']) {
        const body = JSON.stringify({ model_id: 'second', draft_model });
        const response = await post('/models/load', body);
        const { error, code } = (await response.json()) as { error: string; code: string };
        assert.deepEqual([response.status, code], [400, 'invalid_request'], body);
        assert.match(
          error,
          /^draft_model is the id of a model, not a file; add its directory to \[models\] dirs/,
        );
      }
      for (const draft_model of ['', 'x'.repeat(513), 7, ['x']]) {
        const body = JSON.stringify({ model_id: 'second', draft_model });
        const response = await post('/models/load', body);
        assert.equal(response.status, 422, body);
        assert.match(await response.text(), /draft_model/);
      }
      await stillAnswers();
    });

    it('null is as good as absent, and tokens at the edge are taken', async () => {
      const nulls = Object.fromEntries(Object.keys(badFields).map((field) => [field, null]));
      for (const [path, body] of [
        ['/v1/chat/completions', { ...chat, ...nulls, top_logprobs: null, max_tokens: 1 }],
        ['/v1/completions', { ...completion, ...nulls, prompt: [0, 2047], max_tokens: 1 }],
        ['/v1/completions', { ...completion, max_tokens: 0 }],
        ['/v1/chat/completions', { ...chat, max_tokens: 2 ** 31 - 1, seed: 2 ** 53 - 1, temperature: 1e-30 }],
      ] as const) {
        const response = await post(path, JSON.stringify(body));
        assert.equal(response.status, 200, await response.text());
      }
    });

    it('refuses a prompt longer than the context with its length', async () => {
      const long = 'river stone '.repeat(400);
      for (const [path, body, param] of [
        ['/v1/chat/completions', { ...chat, messages: [{ role: 'user', content: long }] }, 'messages'],
        ['/v1/completions', { ...completion, prompt: long }, 'prompt'],
        ['/v1/completions', { ...completion, prompt: Array(context).fill(300) }, 'prompt'],
        ['/v1/completions', { ...completion, prompt: Array(1_000_000).fill(300) }, 'prompt'],
      ] as const) {
        const message = await refused(path, JSON.stringify(body), 400, param);
        assert.match(
          message,
          /^This model's maximum context length is 256 tokens\. However, your messages re/,
        );
      }
      await stillAnswers();
    });

    it('refuses bodies of 60 MB without working through them', async () => {
      const fill = (mb: number, start: string, unit: string, end: string): string =>
        start + unit.repeat(Math.floor((mb * mib - start.length - end.length) / unit.length)) + end;
      const head = '{"model":"cortex-tiny",';
      const text = 'river stone ';
      const message = `${head}"messages":[{"role":"user","content":"`;
      const cases: readonly (readonly [string, string, string])[] = [
        ['/v1/completions', fill(60, `${head}"prompt":"`, text, '"}'), 'prompt'],
        ['/v1/chat/completions', fill(60, message, text, '"}]}'), 'messages'],
        ['/tokenize', fill(60, `${head}"content":"`, text, '"}'), 'content'],
        ['/v1/chat/completions', fill(60, `${head}"messages":`, '[', ''), 'messages'],
        // What took the schema an issue per item, and then the memory.
        ['/v1/completions', fill(8, `${head}"prompt":[1`, ',1', ']}'), 'prompt'],
        ['/v1/completions', fill(8, `${head}"prompt":[1.5`, ',1.5', ']}'), 'prompt'],
        ['/v1/completions', fill(8, `${head}"prompt":["x"`, ',"x"', ']}'), 'prompt'],
        ['/v1/chat/completions', fill(8, `${head}"messages":[{}`, ',{}', ']}'), 'messages'],
        ['/v1/chat/completions', fill(8, `${head}"messages":[7`, ',7', ']}'), 'messages'],
        ['/v1/chat/completions', fill(8, `${head}"stop":[""`, ',""', ']}'), 'stop'],
        ['/detokenize', fill(8, `${head}"tokens":[1`, ',1', ']}'), 'tokens'],
      ];
      for (const [path, body, param] of cases) {
        await refused(path, body, 400, param);
        const { rss } = process.memoryUsage();
        assert.ok(rss < 2048 * mib, `${path} ${param}: ${rss} bytes`);
      }
      await stillAnswers();
      const tooLarge = await post('/v1/completions', Buffer.alloc(65 * mib, 'x'));
      assert.equal(tooLarge.status, 413);
      await stillAnswers();
    });
  });
}
