import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { GenerateResult, StepEvent } from 'cortex-core/wire/inference';
import type { ChatChunk } from 'cortex-core/wire/openai';
import { ChatAnswer, type ChatAnswerOptions } from './answer.ts';
import { detectFormat } from './format/detect-format.ts';
import { toOfferedTools } from './format/offered-tools.ts';

const identity = { id: 'chatcmpl-00112233445566778899aabbccddeeff', created: 1, model: 'm' };
const timings = { queue_ms: 0, prefill_ms: 0, decode_ms: 0 };
const tools = toOfferedTools([
  { type: 'function', function: { name: 'f', description: undefined, parameters: undefined } },
]);

function hermes(more: Partial<ChatAnswerOptions> = {}): ChatAnswer {
  const format = detectFormat(
    { chatTemplate: '{{ tools }}<tool_call><think></think>', namedTemplates: {} },
    'qwen3',
  );
  let count = 0;
  const randomText = () => String(count++).padEnd(24, '0');
  const base = { format, tools, startsInReasoning: false, parallel: true, stops: ['STOP'] };
  const options = { ...base, promptTokens: null, randomText };
  return new ChatAnswer(identity, { ...options, ...more });
}

function result(
  completionTokens: number,
  finishReason: GenerateResult['finishReason'] = 'stop',
): GenerateResult {
  return {
    finishReason,
    stopText: null,
    usage: { promptTokens: 1, cachedTokens: 0, completionTokens },
    timings: { queueMs: 0, prefillMs: 0, decodeMs: 0 },
  };
}

/** One step a token. */
function run(answer: ChatAnswer, pieces: readonly string[]): ChatChunk[] {
  return pieces.flatMap((text, at) => answer.step({ text, tokens: [at] } satisfies StepEvent));
}

const thinkAndCall = [
  '<think>',
  'hm',
  '</think>',
  '\n',
  '<tool_call>',
  '{"name": "f", ',
  '"arguments": {"a"',
  ': 1}}',
];

describe('ChatAnswer', () => {
  it('streams reasoning, then the name of a call, then its arguments, and ends with tool_calls', () => {
    const answer = hermes();
    const chunks = [...run(answer, thinkAndCall), ...answer.finish(result(8))];
    const deltas = chunks.map(({ choices }) => choices[0]!.delta);
    const id = `call_${'0'.repeat(24)}`;
    assert.deepEqual(deltas, [
      { reasoning_content: 'hm' },
      { tool_calls: [{ index: 0, id, type: 'function', function: { name: 'f', arguments: '' } }] },
      { tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] },
      { tool_calls: [{ index: 0, function: { arguments: ': 1}' } }] },
      {},
    ]);
    assert.equal(chunks.at(-1)?.choices[0]?.finish_reason, 'tool_calls');
  });

  it('gives the same whole, with the tokens of the block counted as reasoning', () => {
    const answer = hermes();
    run(answer, thinkAndCall);
    answer.finish(result(8));
    const whole = answer.whole(result(8), timings);
    const [choice] = whole.choices;
    assert.equal(choice?.message.content, null);
    assert.equal(choice?.message.reasoning_content, 'hm');
    assert.equal(choice?.message.tool_calls?.[0]?.function.arguments, '{"a": 1}');
    assert.equal(choice?.finish_reason, 'tool_calls');
    assert.deepEqual(whole.usage.completion_tokens_details, { reasoning_tokens: 3 });
    assert.deepEqual(answer.usageChunk(result(8), timings).usage, whole.usage);
  });

  it('reads a block that the prompt has opened, and one that is never closed', () => {
    const answer = hermes({ startsInReasoning: true });
    run(answer, ['so', ' far']);
    answer.finish(result(2, 'length'));
    const whole = answer.whole(result(2, 'length'), timings);
    assert.deepEqual(whole.choices[0]?.message, {
      role: 'assistant',
      content: '',
      refusal: null,
      reasoning_content: 'so far',
    });
    assert.equal(whole.choices[0]?.finish_reason, 'length');
    assert.equal(whole.usage.completion_tokens_details?.reasoning_tokens, 2);
  });

  it('keeps to one call without parallel_tool_calls, and says that it is over', () => {
    const answer = hermes({ parallel: false });
    const call = '<tool_call>{"name": "f"}</tool_call>';
    run(answer, [call]);
    assert.equal(answer.isOver, false);
    run(answer, [call]);
    assert.equal(answer.isOver, true);
    answer.finish(result(2));
    assert.equal(answer.whole(result(2), timings).choices[0]?.message.tool_calls?.length, 1);
  });

  it('a call cut by the token limit ends with length and the arguments that came', () => {
    const answer = hermes();
    run(answer, ['<tool_call>{"name": "f", "arguments": {"a": "b']);
    const last = answer.finish(result(5, 'length')).at(-1);
    assert.equal(last?.choices[0]?.finish_reason, 'length');
    const { message } = answer.whole(result(5, 'length'), timings).choices[0]!;
    assert.equal(message.tool_calls?.[0]?.function.arguments, '{"a": "b');
  });

  it("tells which of the client's stops ended it, and none of the format's", () => {
    for (const [stopText, told] of [
      ['STOP', 'STOP'],
      ['<|im_end|>', undefined],
    ] as const) {
      const answer = hermes();
      run(answer, ['Hi']);
      const ended = { ...result(1), stopText };
      const last = answer.finish(ended).at(-1)?.choices[0];
      assert.deepEqual([last?.finish_reason, last?.stop_reason], ['stop', told]);
      const whole = answer.whole(ended, timings).choices[0];
      assert.deepEqual([whole?.finish_reason, whole?.stop_reason], ['stop', told]);
    }
  });

  it("a call cut by the client's stop is none to be made, and a whole one is", () => {
    for (const [text, reason] of [
      ['<tool_call>{"name": "f", "arguments": {"a": "b', 'stop'],
      ['<tool_call>{"name": "f", "arguments": {}}</tool_call>', 'tool_calls'],
    ] as const) {
      const answer = hermes();
      run(answer, [text]);
      const ended = { ...result(5), stopText: 'STOP' };
      assert.equal(answer.finish(ended).at(-1)?.choices[0]?.finish_reason, reason);
      assert.equal(answer.whole(ended, timings).choices[0]?.finish_reason, reason);
    }
  });

  it('tells a full context from max_tokens, whole and streamed', () => {
    for (const [reason, told] of [
      ['context_full', 'context_full'],
      ['length', undefined],
    ] as const) {
      const answer = hermes();
      run(answer, ['on and on']);
      const [last] = answer.finish(result(2, reason)).at(-1)?.choices ?? [];
      const [whole] = answer.whole(result(2, reason), timings).choices;
      assert.deepEqual([last?.finish_reason, last?.stop_reason], ['length', told]);
      assert.deepEqual([whole?.finish_reason, whole?.stop_reason], ['length', told]);
    }
  });

  it('tells the size of the prompt with its first chunk, where that was asked for', () => {
    assert.equal('usage' in hermes().begin(3), false);
    assert.deepEqual(hermes({ promptTokens: 10 }).begin(3).usage, {
      prompt_tokens: 10,
      completion_tokens: 0,
      total_tokens: 10,
      prompt_tokens_details: { cached_tokens: 3 },
    });
  });

  it('puts logprobs on a chunk even when the text is held back', () => {
    const answer = hermes();
    const logprobs = [{ token: 1, text: '<', bytes: [60], logprob: -1, top: [] }];
    const [chunk] = answer.step({ text: '<', tokens: [1], logprobs });
    assert.equal(chunk?.choices[0]?.delta.content, '');
    assert.equal(chunk?.choices[0]?.logprobs?.content.length, 1);
  });
});
