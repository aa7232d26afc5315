/** What Anthropic's own client makes of every way an answer can go: its parser against our streams and wholes. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { loadConfig } from 'cortex-core/config/load';
import { silentLog } from 'cortex-core/daemon/log';
import { type Transcript, transcripts } from 'cortex-gateway/dialects/chat-transcripts.test.kit';
import { type Gateway, startGateway } from 'cortex-gateway/gateway';
import { type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';

let neuron: FakeNeuron;
let gateway: Gateway;
let client: Anthropic;
before(async () => {
  neuron = await startFakeNeuron({ models: [{ id: 'm', status: 'loaded' }] });
  gateway = await startGateway(
    loadConfig('cortex', {
      defaults: {
        gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0' },
        neurons: [{ name: 'n', endpoint: neuron.url }],
      },
    }),
    loadConfig('models', {}),
    { log: silentLog },
  );
  client = new Anthropic({ baseURL: gateway.url, apiKey: 'none', maxRetries: 0 });
});
after(async () => {
  await gateway?.close();
  await neuron?.close();
});

const answerWith = ({ bytes }: Transcript, until = bytes.length): void => {
  neuron.onChat = ({ response }) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let at = 0; at < until; at += 50) response.write(bytes.subarray(at, Math.min(until, at + 50)));
    response.end();
  };
};
const start = () =>
  client.messages.stream({ model: 'm', max_tokens: 9, messages: [{ role: 'user', content: 'hi' }] });

const textOf = (message: Anthropic.Message): string =>
  message.content.map((block) => (block.type === 'text' ? block.text : '')).join('');
const reasoningOf = (message: Anthropic.Message): string =>
  message.content.map((block) => (block.type === 'thinking' ? block.thinking : '')).join('');

describe("Anthropic's client reads", () => {
  for (const transcript of transcripts) {
    test(`${transcript.name}, and a broken half of it as an error`, async () => {
      answerWith(transcript);
      const stream = start();
      const seen: string[] = [];
      stream.on('text', (delta) => void seen.push(delta));
      const message = await stream.finalMessage();
      assert.equal(textOf(message), transcript.text);
      assert.equal(seen.join(''), transcript.text);
      assert.equal(reasoningOf(message), transcript.reasoning);
      const calls = message.content.filter((block) => block.type === 'tool_use');
      assert.deepEqual(
        calls.map(({ name }) => name),
        transcript.calls.map(([name]) => name),
      );
      for (const [at, [, given]] of transcript.calls.entries()) {
        // what was cut off is read by the client's own parser
        if (transcript.finish !== 'length') assert.deepEqual(calls[at]?.input, JSON.parse(given || '{}'));
      }
      assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [10, 12]);

      answerWith(transcript, transcript.wholeFrom - 30);
      await assert.rejects(start().finalMessage(), Anthropic.APIError);
    });
  }
});
