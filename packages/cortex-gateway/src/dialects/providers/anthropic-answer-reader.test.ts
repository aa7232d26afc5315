import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type FakeBlock, messageOf, messageStream } from 'testkit/fake-provider';
import { SeededRandom } from 'testkit/seeded-random';
import type { AnswerEvent } from '../inner/answer-event.ts';
import { AnswerGrammar } from '../inner/answer-grammar.ts';
import { OpenAiGrammar } from '../wire-grammar/openai-grammar.ts';
import { AnthropicAnswerReader, readAnthropicAnswer } from './anthropic-answer-reader.ts';
import { toAnthropicCall } from './anthropic-wire.ts';
import type { ProviderStream } from './provider-wire.ts';

const target = {
  model: 'far',
  outputMax: null,
  dropFields: [],
  maxTokensField: 'max_tokens' as const,
  createdSecs: 1,
};
const question = { model: 'm', messages: [{ role: 'user', content: 'a' }], stream: true };
const translator = (more: object = {}): ProviderStream =>
  toAnthropicCall(
    '/v1/chat/completions',
    Buffer.from(JSON.stringify({ ...question, ...more })),
    target,
  ).streamOut();

const answers: readonly (readonly [string, readonly FakeBlock[], string, string | null])[] = [
  ['nothing', [], 'end_turn', null],
  ['text', [{ type: 'text', text: 'Grüße, 世界 🌍!' }], 'end_turn', null],
  ['stop text', [{ type: 'text', text: 'one' }], 'stop_sequence', 'two'],
  ['cut', [{ type: 'text', text: 'one' }], 'max_tokens', null],
  ['full', [{ type: 'text', text: 'one' }], 'model_context_window_exceeded', null],
  ['refusal', [{ type: 'text', text: 'no' }], 'refusal', null],
  [
    'thinking and calls',
    [
      { type: 'thinking', thinking: 'hm 🤔', signature: 's' },
      { type: 'text', text: 'I look' },
      { type: 'tool_use', id: 'a', name: 'look', input: { at: 'é"\\' } },
      { type: 'tool_use', id: 'b', name: 'list', input: {} },
    ],
    'tool_use',
    null,
  ],
];

const read = (bytes: Uint8Array, size = Math.max(1, bytes.length)): AnswerEvent[] => {
  const reader = new AnthropicAnswerReader();
  const events: AnswerEvent[] = [];
  for (let at = 0; at < bytes.length; at += size) events.push(...reader.push(bytes.subarray(at, at + size)));
  return [...events, ...reader.end()];
};
const faultOf = (events: readonly AnswerEvent[]): string | null => {
  const grammar = new AnswerGrammar();
  for (const event of events) grammar.push(event);
  return grammar.end();
};
/** Everything that an answer says, however it was cut into pieces. */
const meaningOf = (events: readonly AnswerEvent[]): unknown => {
  const said = { text: '', reasoning: '', calls: [] as string[], end: [] as unknown[] };
  for (const event of events) {
    if (event.type === 'text' || event.type === 'reasoning') said[event.type] += event.text;
    else if (event.type === 'call_start') said.calls[event.index] = `${event.id} ${event.name} `;
    else if (event.type === 'call_arguments') said.calls[event.index] += event.text;
    else if (event.type === 'stop') said.end.push(event.reason, event.stopText);
    else if (event.type === 'usage') said.end.push(event.usage);
  }
  return said;
};

describe("a provider's stream", () => {
  for (const [name, blocks, stop, stopText] of answers) {
    const bytes = Buffer.from(messageStream(blocks, stop, stopText));

    test(`${name}: any chunking gives the same events, and the whole answer says the same`, () => {
      const whole = read(bytes);
      assert.equal(faultOf(whole), null);
      for (let size = 1; size < 70; size++) assert.deepEqual(read(bytes, size), whole);
      const message = readAnthropicAnswer(Buffer.from(JSON.stringify(messageOf(blocks, stop, stopText))));
      assert.equal(faultOf(message), null);
      assert.deepEqual(meaningOf(message), meaningOf(whole));
    });

    test(`${name}: cut anywhere before message_stop it ends in an error, in events and as chat`, () => {
      const end = bytes.indexOf('"message_stop"}\n\n') + '"message_stop"}\n\n'.length;
      for (let cut = 0; cut <= bytes.length; cut++) {
        const events = read(bytes.subarray(0, cut));
        assert.equal(faultOf(events), null, `cut at ${cut}`);
        assert.equal(events.at(-1)?.type === 'error', cut < end, `cut at ${cut}`);
        const out = translator();
        const text = Buffer.from(out.push(bytes.subarray(0, cut))).toString();
        assert.equal(/\[DONE\]|"finish_reason":"/.test(text), cut >= end, `cut at ${cut}`);
        if (cut < end) assert.throws(() => out.end(), { code: 'upstream_connection_error' });
      }
    });

    test(`${name}: as chat it keeps the grammar, whether usage was asked for or not`, () => {
      for (const more of [{}, { stream_options: { include_usage: true } }]) {
        const out = translator(more);
        const grammar = new OpenAiGrammar('chat');
        let text = '';
        for (let at = 0; at < bytes.length; at += 11) {
          const piece = out.push(bytes.subarray(at, at + 11));
          grammar.push(piece);
          text += Buffer.from(piece).toString();
        }
        grammar.push(out.end());
        assert.equal(grammar.end(), null);
        assert.equal(text.match(/"usage":\{"prompt_tokens":10,"completion_tokens":5/g)?.length, 1);
      }
    });
  }

  test('random blocks, chunkings, cuts and damage never break the grammar', () => {
    const seed = Number(process.env.CORTEX_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = new SeededRandom(seed);
    const upTo = (n: number): number => random.int(0, n - 1);
    const word = (): string => ['', 'a', ' ', '世', '🌍', '\n\n', 'data: x', '"'][upTo(8)] ?? '';
    const text = (): string => Array.from({ length: upTo(6) }, word).join('');
    for (let round = 0; round < 400; round++) {
      const blocks = Array.from({ length: upTo(5) }, (_, at): FakeBlock => {
        const kind = upTo(3);
        if (kind === 0) return { type: 'text', text: text() };
        if (kind === 1) return { type: 'thinking', thinking: text(), signature: 's' };
        return { type: 'tool_use', id: `id${upTo(2)}${at}`, name: 'f', input: { [text()]: text() } };
      });
      const whole = messageStream(
        blocks,
        blocks.some(({ type }) => type === 'tool_use') ? 'tool_use' : 'end_turn',
      );
      const events = whole.split(/(?<=\n\n)/);
      const damage = upTo(5);
      const at = upTo(events.length);
      if (damage === 1) events.splice(at, 1);
      else if (damage === 2) events.splice(at, 0, events[upTo(events.length)] ?? '');
      else if (damage === 3)
        events.splice(at, 0, `data: ${['null', '[]', '{', '{"type":"new_kind"}'][upTo(4)]}\n\n`);
      const bytes = Buffer.from(damage === 4 ? whole.slice(0, upTo(whole.length)) : events.join(''));
      const found = read(bytes, 1 + upTo(40));
      assert.equal(faultOf(found), null, `seed ${seed}, round ${round}`);
      if (damage === 0) assert.equal(found.at(-1)?.type, 'usage', `seed ${seed}, round ${round}`);
      if (damage === 4) assert.equal(found.at(-1)?.type, 'error', `seed ${seed}, round ${round}`);
    }
  });

  test('blocks without a place in a chat answer are passed over', () => {
    const frame = (event: object): string => `data: ${JSON.stringify(event)}\n\n`;
    const extra = [
      frame({
        type: 'content_block_start',
        index: 9,
        content_block: { type: 'redacted_thinking', data: 'x' },
      }),
      frame({ type: 'content_block_stop', index: 9 }),
      frame({
        type: 'content_block_start',
        index: 10,
        content_block: { type: 'server_tool_use', name: 'web' },
      }),
      frame({
        type: 'content_block_delta',
        index: 10,
        delta: { type: 'input_json_delta', partial_json: '{' },
      }),
      frame({ type: 'content_block_stop', index: 10 }),
    ].join('');
    const stream = messageStream([{ type: 'text', text: 'so' }]).replace(
      'event: message_delta',
      `${extra}event: message_delta`,
    );
    const events = read(Buffer.from(stream));
    assert.deepEqual(
      events.map(({ type }) => type),
      ['start', 'text', 'stop', 'usage'],
    );
  });

  test('nonsense behind its end, in the same chunk, makes no error of a whole answer', () => {
    const stream = messageStream([{ type: 'text', text: 'so' }]);
    const whole = read(Buffer.from(stream));
    assert.deepEqual(read(Buffer.from(`${stream}data: []\n\n`)), whole);
  });

  test('its own error ends it in one, with the words', () => {
    const error =
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n';
    const stream = messageStream([{ type: 'text', text: 'so' }]).replace(
      /event: message_delta[\s\S]*/,
      error,
    );
    const last = read(Buffer.from(stream)).at(-1);
    assert.ok(last?.type === 'error');
    assert.deepEqual([last.error.code, last.error.message], ['overloaded', 'the provider: busy']);
  });
});
