import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { chatStream } from 'testkit/fake-neuron';
import { transcripts } from '../chat-transcripts.test.kit.ts';
import type { AnswerEvent } from './answer-event.ts';
import { AnswerGrammar } from './answer-grammar.ts';
import { ChatAnswerReader, readChatAnswer } from './chat-answer-reader.ts';
import { toChatBody } from './chat-body.ts';
import type { InnerPart, InnerRequest, InnerTurn } from './inner-request.ts';

const requestOf = (fields: Partial<InnerRequest>): InnerRequest => ({
  model: 'm',
  stream: false,
  turns: [],
  tools: [],
  toolChoice: null,
  parallelToolCalls: null,
  maxTokens: null,
  stops: [],
  reasoning: null,
  format: null,
  continuesLastTurn: false,
  sampling: {},
  ...fields,
});
const text = (value: string): InnerPart => ({ type: 'text', text: value });
const call = (id: string): InnerPart => ({ type: 'call', id, name: 'look', arguments: '{"at":1}' });
const result = (callId: string, value: string, isError = false): InnerPart => ({
  ...{ type: 'result', callId, parts: value === '' ? [] : [text(value)], isError },
});
const messagesOf = (turns: readonly InnerTurn[], capabilities: string[] | null = null) =>
  toChatBody(requestOf({ turns }), { wireId: 'w', capabilities }).messages as Record<string, unknown>[];

describe('toChatBody', () => {
  it('says what the neuron calls each field, and nothing that was left unsaid', () => {
    assert.deepEqual(
      toChatBody(requestOf({ turns: [{ role: 'user', parts: [text('a')] }] }), { wireId: 'w' }),
      {
        model: 'w',
        messages: [{ role: 'user', content: 'a' }],
      },
    );
    const full = requestOf({
      stream: true,
      turns: [{ role: 'user', parts: [text('a')] }],
      tools: [{ name: 't', description: 'd', parameters: { type: 'object' }, strict: true }],
      toolChoice: { name: 't' },
      parallelToolCalls: false,
      maxTokens: 9,
      stops: ['END'],
      reasoning: { enabled: true, effort: 'low', budget: 5 },
      format: { name: 'f', schema: { type: 'object' }, strict: true },
      sampling: { top_k: 3 },
    });
    assert.deepEqual(
      toChatBody(full, {
        wireId: 'w',
        defaults: { top_k: 1, top_p: 0.5 },
        overrides: { seed: 7 },
        capabilities: ['text', 'reasoning'],
      }),
      {
        model: 'w',
        messages: [{ role: 'user', content: 'a' }],
        max_tokens: 9,
        stream: true,
        stream_options: { include_usage: true, include_prompt_usage: true },
        top_k: 3,
        stop: ['END'],
        tools: [
          {
            type: 'function',
            function: { name: 't', description: 'd', parameters: { type: 'object' }, strict: true },
          },
        ],
        tool_choice: { type: 'function', function: { name: 't' } },
        parallel_tool_calls: false,
        enable_thinking: true,
        reasoning_effort: 'low',
        thinking_budget_tokens: 5,
        response_format: {
          type: 'json_schema',
          json_schema: { name: 'f', schema: { type: 'object' }, strict: true },
        },
        top_p: 0.5,
        seed: 7,
      },
    );
    const plain = toChatBody(full, { wireId: 'w', capabilities: ['text'] });
    assert.equal(
      'reasoning_effort' in plain,
      false,
      'an effort would be refused by a model that does not reason',
    );
  });

  it('continues the last turn where it is the last message', () => {
    const continues = (parts: InnerPart[]) => {
      const turns: InnerTurn[] = [
        { role: 'user', parts: [text('a')] },
        { role: 'assistant', parts },
        { role: 'assistant', parts: [text('so')] },
      ];
      return toChatBody(requestOf({ turns, continuesLastTurn: true }), { wireId: 'w' })
        .continue_final_message;
    };
    assert.equal(continues([text('b')]), true);
    assert.equal(continues([call('x')]), undefined);
  });

  it('puts results behind their calls in the order of the calls, whatever order they came in', () => {
    assert.deepEqual(
      messagesOf([
        { role: 'assistant', parts: [text('let me see'), call('a'), call('b'), call('c')] },
        { role: 'user', parts: [result('c', 'three', true), text('note'), result('a', 'one')] },
        { role: 'system', parts: [text('sys')] },
        { role: 'user', parts: [result('zzz', 'lost'), text('go on')] },
      ]).map(({ tool_calls: _, ...rest }) => rest),
      [
        { role: 'assistant', content: 'let me see' },
        { role: 'tool', tool_call_id: 'a', content: 'one' },
        { role: 'tool', tool_call_id: 'b', content: '[no result]' },
        { role: 'tool', tool_call_id: 'c', content: 'Error: three' },
        { role: 'user', content: 'note' },
        { role: 'system', content: 'sys' },
        { role: 'user', content: '[result of zzz]\nlost\n\ngo on' },
      ],
    );
  });

  it('merges turns of one role, so that templates which demand alternation take them', () => {
    assert.deepEqual(
      messagesOf([
        { role: 'system', parts: [text('one'), text('two')] },
        { role: 'system', parts: [text('three')] },
        { role: 'user', parts: [text('a'), text('b')] },
        { role: 'user', parts: [text('c')] },
        { role: 'assistant', parts: [{ type: 'reasoning', text: 'hm' }] },
        { role: 'assistant', parts: [call('x')] },
      ]),
      [
        { role: 'system', content: 'one\n\ntwo\n\nthree' },
        { role: 'user', content: 'ab\n\nc' },
        {
          role: 'assistant',
          content: null,
          reasoning_content: 'hm',
          tool_calls: [{ id: 'x', type: 'function', function: { name: 'look', arguments: '{"at":1}' } }],
        },
        { role: 'tool', tool_call_id: 'x', content: '[no result]' },
      ],
    );
  });

  it('passes images to whom they can be shown; in a result a model without vision gets a word in place', () => {
    const image: InnerPart = { type: 'image', url: 'data:image/png;base64,AA', path: 'messages.0.content.1' };
    const shown: InnerTurn[] = [{ role: 'user', parts: [text('see'), image] }];
    const part = { type: 'image_url', image_url: { url: 'data:image/png;base64,AA' } };
    for (const known of [null, ['text', 'vision']]) {
      assert.deepEqual(messagesOf(shown, known), [
        { role: 'user', content: [{ type: 'text', text: 'see' }, part] },
      ]);
    }
    assert.throws(
      () => messagesOf(shown, ['text']),
      (error: AppError) => error.code === 'vision_unsupported' && error.param === 'messages.0.content.1',
    );
    const read: InnerTurn[] = [
      { role: 'assistant', parts: [call('a')] },
      { role: 'user', parts: [{ type: 'result', callId: 'a', parts: [text('it'), image], isError: false }] },
    ];
    assert.deepEqual(messagesOf(read, ['text']).slice(1), [
      { role: 'tool', tool_call_id: 'a', content: 'it\n[image omitted: the model has no vision]' },
    ]);
    assert.deepEqual(messagesOf(read, ['text', 'vision']).slice(1), [
      { role: 'tool', tool_call_id: 'a', content: 'it\n[image: see below]' },
      { role: 'user', content: [{ type: 'text', text: 'Attached media from tool result:' }, part] },
    ]);
  });

  it('refuses a document that is asked about, and none that is history', () => {
    const pdf = {
      type: 'document',
      title: 'a.pdf',
      mediaType: 'application/pdf',
      data: '',
      path: 'p',
    } as const;
    assert.throws(() => messagesOf([{ role: 'user', parts: [pdf] }]), { param: 'p' });
    const later = messagesOf([
      { role: 'user', parts: [pdf] },
      { role: 'assistant', parts: [call('a')] },
      { role: 'user', parts: [result('a', ''), pdf] },
    ]);
    assert.equal(JSON.stringify(later).match(/document omitted: a.pdf/g)?.length, 2);
  });
});

const frame = (delta: object, finish: string | null = null, more: object = {}): string =>
  `data: ${JSON.stringify({ id: 'chatcmpl-1', choices: [{ index: 0, delta, finish_reason: finish, ...more }] })}\n\n`;
const piece = (index: number, args: string, id?: string) => ({
  tool_calls: [
    {
      index,
      ...(id === undefined ? {} : { id }),
      function: { ...(id ? { name: 'f' } : {}), arguments: args },
    },
  ],
});
const usage = {
  prompt_tokens: 10,
  completion_tokens: 3,
  prompt_tokens_details: { cached_tokens: 4 },
  completion_tokens_details: { reasoning_tokens: 1 },
};

const read = (bytes: Uint8Array, size = bytes.length): AnswerEvent[] => {
  const reader = new ChatAnswerReader();
  const events: AnswerEvent[] = [];
  for (let at = 0; at < bytes.length; at += size) events.push(...reader.push(bytes.subarray(at, at + size)));
  return [...events, ...reader.end()];
};
/** Neighbours of one kind as one, so that a chunking cannot show. */
const shortOf = (events: readonly AnswerEvent[]): string =>
  events
    .map((event) => {
      if (event.type === 'text' || event.type === 'reasoning') return `${event.type}:${event.text}`;
      if (event.type === 'call_start') return `+${event.index}:${event.id}`;
      if (event.type === 'call_arguments') return `${event.index}:${event.text}`;
      if (event.type === 'call_stop') return `-${event.index}`;
      if (event.type === 'stop') return `stop:${event.reason}:${event.stopText}`;
      return event.type === 'error' ? `error:${event.error.code}` : event.type;
    })
    .join(' ');
const faultOf = (events: readonly AnswerEvent[]) => {
  const grammar = new AnswerGrammar();
  for (const event of events) grammar.push(event);
  return grammar.end();
};

describe('ChatAnswerReader', () => {
  const golden = Buffer.from(
    [
      ': keep-alive\n\n',
      frame({ role: 'assistant', content: '' }),
      frame({ reasoning_content: 'denke nach 🤔' }),
      frame({ content: '日本語' }),
      frame(piece(0, '', 'a')),
      frame(piece(0, '{"x":')),
      frame(piece(0, '"é"}')),
      frame(piece(1, '{}', 'b')),
      frame({}, 'tool_calls'),
      `data: ${JSON.stringify({ choices: [], usage })}\n\n`,
      'data: [DONE]\n\n',
    ].join(''),
  );

  it('reads the same events from any chunking', () => {
    const whole = read(golden);
    assert.equal(
      shortOf(whole),
      'start reasoning:denke nach 🤔 text:日本語 +0:a 0:{"x": 0:"é"} -0 +1:b 1:{} -1 stop:calls:null usage',
    );
    assert.deepEqual(whole.at(-1), {
      type: 'usage',
      usage: { promptTokens: 10, cachedTokens: 4, completionTokens: 3, reasoningTokens: 1 },
    });
    for (let size = 1; size < 60; size++) assert.deepEqual(read(golden, size), whole);
    assert.equal(faultOf(whole), null);
  });

  it('cut short before its finish reason it ends in an error, and keeps the grammar wherever the cut is', () => {
    const finish = golden.indexOf('"finish_reason":"tool_calls"');
    const stop = golden.indexOf('\n\n', finish) + 2;
    for (let cut = 0; cut <= golden.length; cut++) {
      const events = read(golden.subarray(0, cut));
      assert.equal(faultOf(events), null);
      assert.equal(events.at(-1)?.type === 'error', cut < stop, `cut at ${cut}`);
    }
  });

  it('keeps the grammar on every transcript, whole and cut anywhere', () => {
    for (const { name, bytes } of transcripts) {
      for (
        let cut = 0;
        cut <= bytes.length;
        cut += cut === bytes.length ? 1 : Math.min(7, bytes.length - cut)
      ) {
        assert.equal(faultOf(read(bytes.subarray(0, cut))), null, `${name}, cut at ${cut}`);
      }
    }
  });

  it('reads calls that interleave, and those of engines that leave out index or id', () => {
    const lines = (...frames: string[]) => shortOf(read(Buffer.from(frames.join('') + frame({}, 'stop'))));
    assert.equal(
      lines(
        frame(piece(0, '{"a"', 'x')),
        frame(piece(1, '{"b"', 'y')),
        frame(piece(0, ':1}')),
        frame(piece(1, ':2}')),
      ),
      'start +0:x 0:{"a" +1:y 1:{"b" 0::1} 1::2} -0 -1 stop:calls:null',
    );
    const bare = (id: string | undefined, args: string) =>
      frame({ tool_calls: [{ id, function: { name: 'f', arguments: args } }] });
    assert.equal(lines(bare('x', '{}'), bare('y', '{}')), 'start +0:x 0:{} -0 +1:y 1:{} -1 stop:calls:null');
    assert.equal(lines(bare(undefined, '{}')), 'start +0:call_chatcmpl1_0 0:{} -0 stop:calls:null');
    assert.equal(
      lines(frame(piece(5, '{}', 'x')), frame(piece(9, '{}', 'x'))).includes('+1:call_chatcmpl1_1'),
      true,
    );
  });

  it('ends in an error where a call lost its end, not where the model wrote it wrong', () => {
    const endOf = (args: string, size: number) =>
      shortOf(read(Buffer.from(frame(piece(0, args, 'x')) + frame({}, 'tool_calls')), size))
        .split(' ')
        .at(-1);
    for (const size of [1, 1000]) {
      for (const cut of ['{"path":"/t', '{"a":1', '{"a":"b"', '{"a":"b" ', '{"a":["b",', '{"a" : "\\"']) {
        assert.equal(endOf(cut, size), 'error:upstream_malformed_response', cut);
      }
      const wrong = [
        '{"text":"a 5" pipe"}',
        '{"text":"say ""}',
        '{"a":"b"\n"c":"d',
        "{'a': 1}",
        '{"a":"b" {',
      ];
      for (const given of wrong) assert.equal(endOf(given, size), 'stop:calls:null', given);
    }
  });

  it('tells the ways to stop apart', () => {
    const stopOf = (finish: string, more: object = {}) => {
      const stop = read(Buffer.from(frame({ content: 'a' }) + frame({}, finish, more))).at(-1);
      return stop?.type === 'stop' ? [stop.reason, stop.stopText] : [stop?.type];
    };
    assert.deepEqual(stopOf('stop'), ['end', null]);
    assert.deepEqual(stopOf('stop', { stop_reason: 'END' }), ['stop_text', 'END']);
    assert.deepEqual(stopOf('stop', { stop_reason: 128009 }), ['end', null]);
    assert.deepEqual(stopOf('length'), ['length', null]);
    assert.deepEqual(stopOf('length', { stop_reason: 'context_full' }), ['context_full', null]);
    assert.deepEqual(stopOf('content_filter'), ['refusal', null]);
    assert.deepEqual(stopOf('tool_calls'), ['end', null]);
  });

  it('ends in one error where upstream reports one, or sends what is no answer', () => {
    const codeOf = (line: string) => {
      const events = read(Buffer.from(frame({ content: 'kept' }) + line));
      assert.equal(faultOf(events), null);
      assert.equal(events[1]?.type, 'text');
      const last = events.at(-1);
      return last?.type === 'error' ? last.error.code : null;
    };
    assert.equal(codeOf('data: {"error":{"code":"device_gone","message":"gone"}}\n\n'), 'device_gone');
    assert.equal(codeOf('data: {"error":"what"}\n\n'), 'internal_server_error');
    for (const bad of [
      '<html>',
      '[]',
      'null',
      '{"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"stop"}]}',
    ]) {
      assert.equal(codeOf(`data: ${bad}\n\n`), 'upstream_malformed_response', bad);
    }
    assert.equal(
      shortOf(read(Buffer.from(`${chatStream('m', ['a'])}data: <html>\n\n`))),
      'start text:a stop:end:null usage',
    );
  });

  it('takes the size of the prompt from the first chunk where upstream tells it', () => {
    const first = {
      id: 'i',
      choices: [],
      usage: { prompt_tokens: 10, completion_tokens: 0, prompt_tokens_details: { cached_tokens: 4 } },
    };
    const events = read(Buffer.from(`data: ${JSON.stringify(first)}\n\n${frame({ content: 'a' }, 'stop')}`));
    assert.deepEqual(events[0], { type: 'start', id: 'i', promptTokens: 10, cachedTokens: 4 });
    assert.equal(shortOf(events), 'start text:a stop:end:null');
  });
});

describe('readChatAnswer', () => {
  it('reads the same events from a whole answer', () => {
    const message = {
      content: 'a',
      reasoning_content: 'hm',
      tool_calls: [
        { id: 'x', type: 'function', function: { name: 'f', arguments: '{"a":1}' } },
        { id: 'y', type: 'function', function: { name: 'f', arguments: '' } },
      ],
    };
    const answer = { id: 'chatcmpl-1', choices: [{ index: 0, message, finish_reason: 'tool_calls' }], usage };
    const events = readChatAnswer(Buffer.from(JSON.stringify(answer)));
    assert.equal(
      shortOf(events),
      'start reasoning:hm text:a +0:x 0:{"a":1} -0 +1:y -1 stop:calls:null usage',
    );
    assert.equal(faultOf(events), null);
  });

  it('refuses what is no answer', () => {
    for (const body of ['', '{}', '{"choices":[]}', '[1]', '{"choices":[{"message":{"content":"a"}}]}']) {
      assert.throws(() => readChatAnswer(Buffer.from(body)), AppError, body);
    }
    assert.throws(() => readChatAnswer(Buffer.from('{"error":{"code":"overloaded"}}')), {
      code: 'overloaded',
    });
  });
});

describe('AnswerGrammar', () => {
  const start: AnswerEvent = { type: 'start', id: null, promptTokens: null, cachedTokens: null };
  const stop: AnswerEvent = { type: 'stop', reason: 'end', stopText: null };
  const said: AnswerEvent = { type: 'text', text: 'a' };
  const begin = (index: number, id = `id${index}`): AnswerEvent => ({
    type: 'call_start',
    index,
    id,
    name: 'f',
  });
  const give = (index: number): AnswerEvent => ({ type: 'call_arguments', index, text: '{}' });
  const close = (index: number): AnswerEvent => ({ type: 'call_stop', index });
  const failed: AnswerEvent = { type: 'error', error: new AppError('overloaded', 'x') };

  it('takes whole answers, interleaved calls, and an error at any place before the stop', () => {
    for (const events of [
      [start, stop],
      [
        start,
        said,
        begin(0),
        begin(1),
        give(0),
        give(1),
        close(1),
        close(0),
        said,
        { ...stop, reason: 'calls' },
      ],
      [failed],
      [start, begin(0), failed],
    ] as AnswerEvent[][]) {
      assert.equal(faultOf(events), null);
    }
  });

  it('names the rule that each fault breaks', () => {
    for (const [rule, events] of [
      ['no_end', []],
      ['no_end', [start, said]],
      ['no_start', [said, stop]],
      ['second_start', [start, start, stop]],
      ['text_inside_call', [start, begin(0), said, close(0), stop]],
      ['unknown_call', [start, give(0), stop]],
      ['unknown_call', [start, begin(0), close(0), close(0), stop]],
      ['call_index', [start, begin(1), close(1), stop]],
      ['call_id_twice', [start, begin(0, 'x'), close(0), begin(1, 'x'), close(1), stop]],
      ['call_left_open', [start, begin(0), stop]],
      ['stop_without_call', [start, { ...stop, reason: 'calls' }]],
      ['after_end', [start, stop, said]],
      ['after_end', [start, stop, failed]],
      ['after_end', [failed, said]],
    ] as [string, AnswerEvent[]][]) {
      assert.equal(faultOf(events), rule);
    }
  });
});
