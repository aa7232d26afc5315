import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { SseParser } from 'cortex-core/wire/sse';
import { toMessage } from './anthropic-answer.ts';
import type { ThinkingDisplay } from './anthropic-request.ts';
import { hiddenText } from './anthropic-signature.ts';
import { AnthropicStream } from './anthropic-stream.ts';
import { type Transcript, toTranscript, transcripts } from './chat-transcripts.test.kit.ts';
import { readChatAnswer } from './inner/chat-answer-reader.ts';
import { AnthropicGrammar } from './wire-grammar/anthropic-grammar.ts';

interface Replay {
  readonly bytes: Buffer;
  readonly failure: AppError | null;
}

/** As the gateway runs it: what `push` or `end` throws becomes the error event. */
function replay(pieces: readonly Uint8Array[], display: ThinkingDisplay = 'full'): Replay {
  const stream = new AnthropicStream({ model: 'm', display, inputTokensEstimate: 3, requestId: 'req_1' });
  const out: Uint8Array[] = [];
  try {
    for (const piece of pieces) out.push(stream.push(piece), stream.keepAlive());
    out.push(stream.end());
    return { bytes: Buffer.concat(out), failure: null };
  } catch (thrown) {
    assert.ok(thrown instanceof AppError);
    out.push(stream.error(thrown));
    return { bytes: Buffer.concat(out), failure: thrown };
  }
}

const cutInto = (bytes: Buffer, size: number): Buffer[] =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
    bytes.subarray(at * size, (at + 1) * size),
  );

interface Event {
  readonly type: string;
  readonly index?: number;
  readonly message?: { readonly id: string; readonly usage: Record<string, number> };
  readonly content_block?: { readonly type: string; readonly name?: string };
  readonly delta?: Record<string, string | undefined>;
  readonly usage?: Record<string, unknown>;
}
const eventsOf = (bytes: Uint8Array): Event[] =>
  new SseParser()
    .push(bytes)
    .map(({ data }) => JSON.parse(data) as Event)
    .filter(({ type }) => type !== 'ping');

/** What a client has got, put together as the SDK does. */
function gather(bytes: Uint8Array) {
  const blocks: { type: string; text: string; name: string; signature: string }[] = [];
  for (const event of eventsOf(bytes)) {
    if (event.type === 'content_block_start') {
      blocks.push({
        type: event.content_block!.type,
        text: '',
        name: event.content_block!.name ?? '',
        signature: '',
      });
    }
    if (event.type !== 'content_block_delta') continue;
    const block = blocks[event.index!]!;
    block.text += event.delta!.text ?? event.delta!.thinking ?? event.delta!.partial_json ?? '';
    block.signature += event.delta!.signature ?? '';
  }
  const textOf = (type: string) =>
    blocks
      .filter((block) => block.type === type)
      .map(({ text }) => text)
      .join('');
  const calls = blocks
    .filter(({ type }) => type === 'tool_use')
    .map(({ name, text }) => [name, text] as const);
  return { blocks, text: textOf('text'), reasoning: textOf('thinking'), calls };
}

function faultOf(bytes: Uint8Array): string | null {
  const grammar = new AnthropicGrammar();
  grammar.push(bytes);
  return grammar.end();
}

const stopOf = (bytes: Uint8Array) => eventsOf(bytes).find(({ type }) => type === 'message_delta')?.delta;

describe('AnthropicStream', () => {
  for (const transcript of transcripts) {
    it(`loses nothing and keeps the grammar: ${transcript.name}`, () => {
      const { bytes, failure } = replay([transcript.bytes]);
      assert.equal(failure, null);
      assert.equal(faultOf(bytes), null);
      const { text, reasoning, calls } = gather(bytes);
      assert.equal(text, transcript.text);
      assert.equal(reasoning, transcript.reasoning);
      assert.deepEqual(calls, transcript.calls);
      for (const size of [1, 2, 3, 7, 64, 1000]) {
        const cut = replay(cutInto(transcript.bytes, size));
        assert.deepEqual(eventsOf(cut.bytes), eventsOf(bytes), `in chunks of ${size}`);
      }
    });

    it(`cut short anywhere ends in an error that a client can tell from an end: ${transcript.name}`, () => {
      for (let cut = 0; cut <= transcript.bytes.length; cut++) {
        const { bytes, failure } = replay(cutInto(transcript.bytes.subarray(0, cut), 50));
        assert.equal(faultOf(bytes), null, `cut at ${cut}`);
        assert.equal(failure !== null, cut < transcript.wholeFrom, `cut at ${cut}`);
        const { text, reasoning } = gather(bytes);
        assert.ok(transcript.text.startsWith(text) && transcript.reasoning.startsWith(reasoning));
      }
    });
  }

  it('tells every way to stop', () => {
    const stops = Object.fromEntries(
      transcripts.map(({ name, bytes }) => [name, stopOf(replay([bytes]).bytes)]),
    );
    const stop = (stop_reason: string, stop_sequence: string | null = null) => ({
      stop_reason,
      stop_sequence,
    });
    assert.deepEqual(stops.text, stop('end_turn'));
    assert.deepEqual(stops['a stop text'], stop('stop_sequence', 'END'));
    assert.deepEqual(stops['too long'], stop('max_tokens'));
    assert.deepEqual(stops['a full context'], stop('model_context_window_exceeded'));
    assert.deepEqual(stops.refused, stop('refusal'));
    assert.deepEqual(stops['a call'], stop('tool_use'));
    assert.deepEqual(stops['a call cut off'], stop('max_tokens'));
  });

  it('begins with the real size of the prompt and ends with the whole bill', () => {
    const events = eventsOf(replay([transcripts[0]!.bytes]).bytes);
    const input = { input_tokens: 10, cache_creation_input_tokens: 0, cache_read_input_tokens: 20 };
    assert.deepEqual(events[0]?.message?.usage, { ...input, output_tokens: 1 });
    const bill = { ...input, output_tokens: 12, output_tokens_details: { thinking_tokens: 5 } };
    assert.deepEqual(events.at(-2)?.usage, bill);
    const bare = Buffer.from(
      'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n',
    );
    const [start, , , , last] = eventsOf(replay([bare]).bytes);
    assert.deepEqual(
      [start?.message?.usage.input_tokens, last?.usage?.input_tokens, last?.usage?.output_tokens],
      [3, 3, 1],
    );
  });

  it('sends all that it had before it reports that the neuron failed, in one chunk as in many', () => {
    const { bytes, wholeFrom } = toTranscript('x', [{ content: 'kept' }], 'stop');
    const failing = Buffer.concat([
      bytes.subarray(0, bytes.lastIndexOf('data: ', wholeFrom - 10)),
      Buffer.from('data: {"error":{"code":"device_gone","message":"the device is gone"}}\n\n'),
    ]);
    for (const size of [1, 30, failing.length]) {
      const { bytes: out, failure } = replay(cutInto(failing, size));
      assert.equal(gather(out).text, 'kept');
      assert.equal(failure?.code, 'device_gone');
      assert.deepEqual(eventsOf(out).at(-1), {
        type: 'error',
        error: { type: 'overloaded_error', message: 'the device is gone', code: 'device_gone' },
        request_id: 'req_1',
      });
      assert.equal(faultOf(out), null);
    }
  });

  it('shows thinking as it was asked to, and never loses it to a client that echoes', () => {
    const { bytes } = transcripts.find(({ name }) => name === 'too long')!;
    const [thinking] = gather(replay([bytes], 'full').bytes).blocks;
    assert.equal(thinking?.text, 'hm 🤔');
    assert.ok(thinking.signature.length > 0);
    const [hidden] = gather(replay([bytes], 'omitted').bytes).blocks;
    assert.deepEqual([hidden?.type, hidden?.text], ['thinking', '']);
    assert.equal(hiddenText(hidden?.signature), 'hm 🤔');
    assert.deepEqual(
      gather(replay([bytes], 'none').bytes).blocks.map(({ type }) => type),
      ['text'],
    );
  });

  it('holds under random answers, chunks and cuts', () => {
    const seed = Number(process.env.CORTEX_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    let state = seed;
    const below = (max: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return (state >> 8) % max;
    };
    for (let round = 0; round < 300; round++) {
      const transcript = randomTranscript(below);
      const chunks = randomChunks(transcript.bytes, below);
      const { bytes, failure } = replay(chunks);
      const hint = `CORTEX_TEST_SEED=${seed} round ${round}`;
      assert.equal(failure, null, hint);
      assert.equal(faultOf(bytes), null, hint);
      const { text, reasoning, calls } = gather(bytes);
      assert.deepEqual(
        [text, reasoning, calls],
        [transcript.text, transcript.reasoning, transcript.calls],
        hint,
      );
      const cut = replay(randomChunks(transcript.bytes.subarray(0, below(transcript.bytes.length)), below));
      assert.equal(faultOf(cut.bytes), null, hint);
    }
  });
});

function randomChunks(bytes: Buffer, below: (max: number) => number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + below(below(4) === 0 ? 400 : 12);
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

/** Texts, thoughts and calls in any order; calls interleave, but not over a text. */
function randomTranscript(below: (max: number) => number): Transcript {
  const words = ['a', ' b', '日本', '🙂', '"', '\\', '\n\n', 'data: ', '\u2028', '{'];
  const word = (): string => words[below(words.length)]!;
  const deltas: Record<string, unknown>[] = [];
  let calls = 0;
  let open: { index: number; left: string[] }[] = [];
  for (let left = below(20); left > 0; left--) {
    const kind = below(5);
    if (kind < 2) {
      for (const { index, left: rest } of open)
        if (rest.length > 0) deltas.push(argumentsOf(index, rest.join('')));
      open = [];
      deltas.push(kind === 0 ? { content: word() } : { reasoning_content: word() });
    } else if (kind === 2) {
      const index = calls++;
      const json = JSON.stringify({ [word()]: word(), n: [below(9), { x: null }] });
      const at = below(json.length);
      open.push({ index, left: [json.slice(0, at), json.slice(at)] });
      const named = { index, id: `call_${index}`, function: { name: `f${index}`, arguments: '' } };
      deltas.push({ tool_calls: [named] });
    } else {
      const next = open[below(Math.max(1, open.length))];
      const piece = next?.left.shift();
      if (next !== undefined && piece !== undefined) deltas.push(argumentsOf(next.index, piece));
    }
  }
  for (const { index, left: rest } of open)
    if (rest.length > 0) deltas.push(argumentsOf(index, rest.join('')));
  return toTranscript('random', deltas, calls > 0 ? 'tool_calls' : 'stop');
}

function argumentsOf(index: number, text: string): Record<string, unknown> {
  return { tool_calls: [{ index, function: { arguments: text } }] };
}

describe('a whole message', () => {
  const answerOf = ({ text, reasoning, calls, finish }: Transcript, more: object = {}) => {
    const message = {
      role: 'assistant',
      content: text,
      ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      ...(calls.length === 0
        ? {}
        : {
            tool_calls: calls.map(([name, given], at) => ({
              id: `call_${at}`,
              function: { name, arguments: given },
            })),
          }),
    };
    const usage = {
      ...{ prompt_tokens: 30, completion_tokens: 12, prompt_tokens_details: { cached_tokens: 20 } },
      completion_tokens_details: { reasoning_tokens: 5 },
    };
    return Buffer.from(
      JSON.stringify({
        id: 'chatcmpl-7',
        choices: [{ index: 0, message, finish_reason: finish, ...more }],
        usage,
      }),
    );
  };

  it('says the same as the stream', () => {
    for (const transcript of transcripts) {
      const stream = eventsOf(replay([transcript.bytes]).bytes);
      const message = toMessage(readChatAnswer(answerOf(transcript)), 'm', 'full');
      assert.equal(message.id, stream[0]?.message?.id);
      assert.deepEqual(message.usage, stream.at(-2)?.usage);
      const texts = message.content.map((block) =>
        block.type === 'text' ? block.text : block.type === 'thinking' ? block.thinking : block.name,
      );
      const { text, reasoning, calls } = gather(replay([transcript.bytes]).bytes);
      const names = calls.map(([name]) => name);
      assert.deepEqual(
        texts,
        [reasoning, text, ...names].filter((each) => each !== ''),
        transcript.name,
      );
    }
  });

  const inputOf = (given: string, finish: string) => {
    const message = { content: null, tool_calls: [{ id: 'a', function: { name: 'f', arguments: given } }] };
    const answer = Buffer.from(JSON.stringify({ id: 'x', choices: [{ message, finish_reason: finish }] }));
    const [block] = toMessage(readChatAnswer(answer), 'm', 'full').content;
    return block?.type === 'tool_use' ? block.input : null;
  };

  it('gives a call that was cut off what of it can be read', () => {
    for (const [given, expected] of [
      ['', {}],
      ['{', {}],
      ['{"a', {}],
      ['{"a":', {}],
      ['{"a":"b', { a: 'b' }],
      ['{"a":"b\\', { a: 'b' }],
      ['{"a":"b\\u00e', { a: 'b' }],
      ['{"a":1,"b":tr', { a: 1 }],
      ['{"a":[1,{"b":"c"},', { a: [1, { b: 'c' }] }],
      ['{"a":{"b":[', { a: { b: [] } }],
      ['[1', {}],
      ['nonsense', {}],
    ] as const) {
      assert.deepEqual(inputOf(given, 'length'), expected, given);
    }
  });

  it('never mends the input of a call that nothing cut', () => {
    for (const given of [
      '{"a":"b',
      '{"a":1,,"b":2}',
      "{'a': 1}",
      'nonsense',
      '{"a":[1}',
      '["a"]',
      '"a"',
      '{"a":"b "c" d"}',
    ]) {
      for (const finish of ['tool_calls', 'stop']) {
        assert.throws(() => inputOf(given, finish), { code: 'upstream_malformed_response' }, given);
      }
    }
    assert.deepEqual(inputOf('{"a":"}\\"{"} ', 'tool_calls'), { a: '}"{' });
    for (const nothing of [' ', 'null']) assert.deepEqual(inputOf(nothing, 'tool_calls'), {});
  });
});

describe('AnthropicGrammar', () => {
  const good = eventsOf(replay([transcripts.find(({ name }) => name === 'a call')!.bytes]).bytes);
  const sse = (events: readonly Event[]): Buffer =>
    Buffer.from(events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join(''));
  const at = (type: string, nth = 0): number =>
    good.map((event, index) => (event.type === type ? index : -1)).filter((index) => index !== -1)[nth]!;
  const without = (index: number) => good.filter((_, each) => each !== index);
  const twice = (index: number) => [...good.slice(0, index + 1), ...good.slice(index)];
  const changed = (index: number, change: object) =>
    good.map((event, each) => (each === index ? { ...event, ...change } : event));

  it('takes the good one, and names the rule that each fault breaks', () => {
    assert.equal(faultOf(sse(good)), null);
    for (const [rule, events] of [
      ['no_message_stop', []],
      ['no_message_stop', good.slice(0, -1)],
      ['no_message_start', without(0)],
      ['second_message_start', twice(0)],
      ['delta_outside_block', without(at('content_block_start'))],
      ['block_left_open', without(at('content_block_stop'))],
      ['stop_outside_block', twice(at('content_block_stop'))],
      ['block_left_open', twice(at('content_block_start'))],
      ['block_index', changed(at('content_block_start'), { index: 4 })],
      ['block_index', changed(at('content_block_delta'), { index: 4 })],
      ['block_shape', changed(at('content_block_start'), { content_block: { type: 'text', text: 'x' } })],
      ['delta_kind', changed(at('content_block_delta'), { delta: { type: 'text_delta', text: 'x' } })],
      ['thinking_without_signature', good.filter((event) => event.delta?.type !== 'signature_delta')],
      ['no_message_delta', without(at('message_delta'))],
      ['after_message_delta', twice(at('message_delta'))],
      ['after_end', twice(good.length - 1)],
      ['message_delta_shape', changed(at('message_delta'), { delta: { stop_reason: null } })],
      ['stop_sequence_shape', changed(at('message_delta'), { delta: { stop_reason: 'stop_sequence' } })],
      ['message_start_shape', changed(0, { message: { id: 'msg_x' } })],
      ['unknown_event', [good[0]!, { type: 'surprise' }]],
      ['error_shape', [{ type: 'error', error: 'x' }]],
      ['after_end', [{ type: 'error', error: { type: 'api_error' } }, good[0]!]],
    ] as [string, Event[]][]) {
      assert.equal(faultOf(sse(events)), rule);
    }
    assert.equal(faultOf(Buffer.from('data: {"type":"ping"}\n\n')), 'event_name');
    assert.equal(faultOf(Buffer.from('event: ping\ndata: {"type"\n\n')), 'not_json');
  });
});
