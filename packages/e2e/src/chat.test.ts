import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SseParser } from 'cortex-core/wire/sse';
import { Engine } from 'neuron/engine/engine';
import { postJson, type Stack, startStack, tinyFile } from './stack.ts';

const question = 'What is the capital of France?';
/** What the template of cortex-tiny makes of that question; written out so that the template is tested too. */
const prompt = `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
const body = { model: 'cortex-tiny', temperature: 0, messages: [{ role: 'user', content: question }] };

interface Completion {
  readonly choices: { message: { content: string }; finish_reason: string }[];
  readonly usage: { prompt_tokens: number; completion_tokens: number };
}

interface Chunk {
  readonly choices: { delta: { content?: string }; finish_reason: string | null }[];
}

let direct: { text: string; promptTokens: number; completionTokens: number };

before(async () => {
  const engine = new Engine({ nativeLog: false });
  const model = engine.load({
    modelId: 'cortex-tiny',
    file: tinyFile,
    context: 2048,
    slots: 1,
    devices: [],
    splitMode: 'layer',
    gpuLayers: null,
    cacheTypeK: 'f16',
    cacheTypeV: 'f16',
    batch: 2048,
    ubatch: 512,
    threads: 1,
    flashAttention: null,
    lora: [],
    embeddings: false,
    prefixCacheMb: 0,
    speculation: 'off',
    draftFile: null,
  });
  let text = '';
  const done = new Promise<{ promptTokens: number; completionTokens: number }>((resolve, reject) => {
    model.submit(
      {
        tokens: model.tokenize(prompt, { addSpecial: true, parseSpecial: true }),
        sampling: { temperature: 0 },
        maxTokens: 200,
        stops: [],
        grammar: null,
        topLogprobs: null,
        ignoreEos: false,
      },
      {
        onStep: (event) => {
          text += event.text;
        },
        onDone: (result) => resolve(result.usage),
        onError: reject,
      },
    );
  });
  while (model.hasWork()) model.step();
  direct = { ...(await done), text };
  engine.close();
});

for (const transport of ['thread', 'process'] as const) {
  describe(`a greedy chat through gateway and neuron, owner in a ${transport}`, () => {
    let stack: Stack;
    before(async () => {
      stack = await startStack({ transport });
    });
    after(() => stack?.close());

    const ask = async (): Promise<Completion> => {
      const response = await postJson(`${stack.baseUrl}/chat/completions`, body);
      assert.equal(response.status, 200, await response.clone().text());
      return (await response.json()) as Completion;
    };

    test('equals the engine called directly', async () => {
      const answer = await ask();
      assert.match(direct.text, /Paris/);
      assert.equal(answer.choices[0]!.message.content, direct.text);
      assert.equal(answer.usage.prompt_tokens, direct.promptTokens);
      assert.equal(answer.usage.completion_tokens, direct.completionTokens);
      assert.equal(answer.choices[0]!.finish_reason, 'stop');
    });

    test('is the same twice', async () => {
      const [first, second] = [await ask(), await ask()];
      assert.deepEqual(second.choices, first.choices);
    });

    test('streamed equals not streamed, token by token', async () => {
      const response = await postJson(`${stack.baseUrl}/chat/completions`, { ...body, stream: true });
      assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
      const events = new SseParser().push(new Uint8Array(await response.arrayBuffer()));
      assert.equal(events.at(-1)?.data, '[DONE]');
      const chunks = events.slice(0, -1).map((event) => JSON.parse(event.data) as Chunk);
      const pieces = chunks.flatMap((chunk) => chunk.choices[0]?.delta.content || []);
      assert.equal(pieces.join(''), direct.text);
      assert.ok(pieces.length > 1, 'more than one delta');
      assert.equal(chunks.flatMap((chunk) => chunk.choices[0]?.finish_reason ?? []).join(), 'stop');
    });

    test('is the same when eight ask at once', async () => {
      const answers = await Promise.all(Array.from({ length: 8 }, ask));
      for (const answer of answers) assert.equal(answer.choices[0]!.message.content, direct.text);
    });

    test('says where it was routed and why', async () => {
      const response = await postJson(`${stack.baseUrl}/chat/completions`, body);
      assert.match(response.headers.get('x-cortex-route') ?? '', /here/);
      await response.body?.cancel();
    });
  });
}
