/** Large answers of /v1/embeddings, from a device whose vectors the test knows. */
import assert from 'node:assert/strict';
import { request } from 'node:http';
import { afterEach, describe, it } from 'node:test';
import { toEmbeddingPieces } from '../chat/embedding-answer.ts';
import type { Neuron } from '../neuron.ts';
import { ScriptedDevice } from './scripted-device.test.kit.ts';
import { startTiny } from './scripted-neuron.test.kit.ts';

const length = 1024;

let neuron: Neuron;
afterEach(() => neuron.close());

async function start(): Promise<void> {
  const device = new ScriptedDevice();
  device.pooling = 'mean';
  device.embeddingLength = length;
  neuron = await startTiny(device);
}

function post(body: object): Promise<Response> {
  return fetch(`${neuron.url}/v1/embeddings`, {
    method: 'POST',
    body: JSON.stringify({ model: 'cortex-tiny', ...body }),
  });
}

interface Answer {
  readonly object: string;
  readonly model: string;
  readonly data: { index: number; object: string; embedding: number[] | string }[];
  readonly usage: { prompt_tokens: number; total_tokens: number };
}

describe('POST /v1/embeddings', () => {
  it('gives a large answer whole and in order, the same as numbers and as base64', async () => {
    await start();
    const input = Array.from({ length: 300 }, (_, at) => [at, 1]);
    const floats = (await (await post({ input })).json()) as Answer;
    const packed = (await (await post({ input, encoding_format: 'base64' })).json()) as Answer;
    assert.deepEqual([floats.object, floats.model, floats.usage.prompt_tokens], ['list', 'cortex-tiny', 600]);
    assert.equal(floats.data.length, 300);
    for (const [at, { index, object, embedding }] of floats.data.entries()) {
      assert.deepEqual([index, object, embedding.length], [at, 'embedding', length]);
      const bytes = Buffer.from(packed.data[at]?.embedding as string, 'base64');
      for (const place of [0, 7, length - 1]) assert.equal(bytes.readFloatLE(place * 4), embedding[place]);
      assert.ok(Math.abs(Math.hypot(...(embedding as number[])) - 1) < 1e-5);
    }
  });

  it('is made piece by piece, and ends with its client', async () => {
    await start();
    const vectors = Array.from({ length: 100 }, () => new Float32Array(length));
    const list = { vectors, format: 'float', model: 'm', promptTokens: 1 } as const;
    const pieces = [...toEmbeddingPieces(list)];
    assert.equal(pieces.length, 7);
    assert.equal((JSON.parse(pieces.join('')) as Answer).data.length, 100);
    const input = Array.from({ length: 2000 }, (_, at) => [at]);
    const slow = request(`${neuron.url}/v1/embeddings`, { method: 'POST' });
    slow.end(JSON.stringify({ model: 'cortex-tiny', input }));
    await new Promise<void>((resolve) => slow.once('response', () => resolve()));
    assert.equal(neuron.registry.loads()[0]?.in_flight, 0, 'a reader that takes its time holds no slot');
    slow.once('error', () => {}).destroy();
    assert.equal((await post({ input: 'a' })).status, 200);
  });
});
