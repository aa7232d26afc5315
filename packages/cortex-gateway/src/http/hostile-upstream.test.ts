/** What a neuron says is read as words: codes that every object has are none of ours. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { encodeErrorFrame } from 'cortex-core/wire/token-frames';
import { type ChatCall, chatStream } from 'testkit/fake-neuron';
import { ask, assertNothingHeld, loaded, post, type Setup, setup } from './failover.test.kit.ts';

const codes = ['constructor', 'toString', '__proto__', 'hasOwnProperty', ''];
const doors = ['/v1/chat/completions', '/v1/messages', '/v1/responses', '/api/chat'];
const bodyFor = (path: string, stream: boolean): object =>
  path === '/v1/responses' ? { model: 'm', input: 'hi', stream } : ask({ stream, max_tokens: 9 });
const closing: (() => Promise<void>)[] = [];
after(async () => {
  for (const close of closing) await close();
});

async function start(more: object = {}): Promise<Setup> {
  const made = await setup([{ models: [loaded(more)] }], { failover: { attempts: 1 } });
  closing.push(made.close);
  return made;
}

function errorOf(text: string): { code?: unknown; type?: unknown; message?: unknown } {
  const data = /^(?:data: )?(\{.*\})$/m.exec(text.trim().split('\n').at(-1) ?? '')?.[1];
  const event = JSON.parse(data ?? text);
  return event.error ?? event.response?.error ?? event;
}

test('a refusal with the name of a method for a code is refused with its status', async () => {
  const { gateway, neurons } = await start();
  for (const code of codes) {
    for (const path of doors) {
      neurons[0]!.onChat = ({ response }: ChatCall) => {
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ error: { message: 'no', code } }));
      };
      const answer = await post(gateway, path, bodyFor(path, false));
      assert.equal(answer.status, 400, `${path} ${code}`);
    }
  }
  assertNothingHeld(gateway);
});

test('an error in a stream with such a code, or of keys, ends it in one of the catalogue', async () => {
  const { gateway, neurons } = await start();
  const [first] = chatStream('m', ['Hello']).split(/(?<=\n\n)/);
  for (const code of [...codes, 'invalid_api_key', 'model_not_allowed']) {
    for (const path of doors) {
      const error = `data: ${JSON.stringify({ error: { message: 'broke', code } })}\n\n`;
      neurons[0]!.onChat = ({ response }: ChatCall) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.end(first + error);
      };
      const answer = await post(gateway, path, bodyFor(path, true));
      assert.equal(answer.status, 200);
      const text = await answer.text();
      assert.match(text, /broke/, `${path} ${code}`);
      // OpenAI's own stream is passed on as it comes
      if (path === doors[0]) continue;
      const said = JSON.stringify(errorOf(text));
      assert.doesNotMatch(said, /constructor|toString|__proto__|OwnProperty/, `${path} ${said}`);
      assert.doesNotMatch(said, /invalid_api_key|not_allowed|authentication|permission/, `${path} ${said}`);
    }
  }
  assertNothingHeld(gateway);
});

test('a framed error with such a code fails over or ends the stream, and the gateway lives', async () => {
  const { gateway, neurons } = await start();
  for (const code of codes) {
    const data = `data: ${JSON.stringify({ error: { message: 'broke', code } })}\n\n`;
    neurons[0]!.onChat = ({ response }: ChatCall) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(encodeErrorFrame(data));
    };
    const answer = await post(gateway, doors[0]!, bodyFor(doors[0]!, true));
    const text = await answer.text();
    assert.match(text, /"code":"[a-z_]+"/, code);
    assert.doesNotMatch(text, /"code":"(?:constructor|toString|__proto__|hasOwnProperty)"/);
  }
  assertNothingHeld(gateway);
});

test('a load that is refused with such a code fails as a load that failed', async () => {
  const { gateway, neurons } = await start({ status: 'available' });
  for (const code of codes) {
    neurons[0]!.onLoad = () => ({ status: 500, body: { error: 'no', code } });
    const answer = await post(gateway, doors[0]!, bodyFor(doors[0]!, false));
    assert.ok([502, 503].includes(answer.status), `${code} ${answer.status}`);
    const { code: said } = errorOf(await answer.text());
    assert.match(String(said), /^(?:cold_load_failed|no_healthy_nodes|model_loading|overloaded)$/);
  }
});
