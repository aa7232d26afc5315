import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { describe, test } from 'node:test';
import { testModel } from 'testkit/test-models';
import { postJson, startStack } from './stack.ts';

const name = 'SmolLM2-135M-Instruct.Q4_1';
const model = testModel(`${name}.gguf`);

describe('SmolLM2 through gateway and neuron', { skip: model.skip }, () => {
  test('is loaded on demand, answers, and stays while another model fits beside it', async () => {
    const stack = await startStack({ transport: 'process', dirs: [dirname(model.file)], preload: [] });
    try {
      const ask = async (id: string, content: string): Promise<string> => {
        const response = await postJson(`${stack.baseUrl}/chat/completions`, {
          model: id,
          temperature: 0,
          max_tokens: 24,
          messages: [
            { role: 'system', content: 'You are a helpful assistant.' },
            { role: 'user', content },
          ],
        });
        assert.equal(response.status, 200, await response.clone().text());
        const answer = (await response.json()) as { choices: { message: { content: string } }[] };
        return answer.choices[0]!.message.content;
      };
      assert.match(await ask(name, 'What is the capital of France?'), /Paris/);
      assert.match(await ask('cortex-tiny', 'What is the capital of France?'), /Paris/);
      const listed = (await (await fetch(`${stack.neuron.url}/models`)).json()) as {
        id: string;
        status: string;
      }[];
      const loaded = listed.filter((each) => each.status === 'loaded').map((each) => each.id);
      assert.deepEqual(loaded.sort(), [name, 'cortex-tiny'].sort());
    } finally {
      await stack.close();
    }
  });
});
