import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { toOpenAiCall } from './openai-wire.ts';

const target = {
  ...{ model: 'far', outputMax: null, dropFields: [], createdSecs: 1 },
  maxTokensField: 'max_tokens' as const,
};
const stream = () => toOpenAiCall('/v1/chat/completions', Buffer.from('{"stream":true}'), target).streamOut();
const piece = (content: string): string => `data: {"choices":[{"delta":{"content":"${content}"}}]}\n\n`;

test("an OpenAI provider's bytes pass as they are, in any chunking", () => {
  const bytes = Buffer.from(
    `: hello\n\n${piece('é')}event: x\r\n${piece('🌍').replaceAll('\n', '\r\n')}data: [DONE]\n\n`,
  );
  for (let size = 1; size <= bytes.length; size++) {
    const out = stream();
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += size) parts.push(out.push(bytes.subarray(at, at + size)));
    assert.deepEqual(Buffer.concat([...parts, out.end()]), bytes);
  }
});

test('what stands before a fault passes, the fault does not, whatever the chunks', () => {
  for (const fault of ['data: <html>\n\n', 'data: {"error":{"message":"no"}}\n\n', 'data: []\n\n']) {
    const bytes = Buffer.from(piece('kept') + fault + piece('lost'));
    for (let size = 1; size <= bytes.length; size++) {
      const out = stream();
      let text = '';
      assert.throws(() => {
        for (let at = 0; at < bytes.length; at += size) {
          text += Buffer.from(out.push(bytes.subarray(at, at + size))).toString();
        }
        text += Buffer.from(out.end()).toString();
      }, AppError);
      assert.equal(text, piece('kept'));
    }
  }
});
