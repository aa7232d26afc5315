import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ResponsesGrammar } from './responses-grammar.ts';

type Json = Record<string, unknown>;

const head = {
  ...{ id: 'resp_1', object: 'response', created_at: 1, completed_at: null, incomplete_details: null },
  ...{
    error: null,
    previous_response_id: null,
    instructions: null,
    model: 'm',
    tools: [],
    tool_choice: 'auto',
  },
  ...{ truncation: 'disabled', parallel_tool_calls: true, text: {}, top_p: 1, presence_penalty: 0 },
  ...{ frequency_penalty: 0, top_logprobs: 0, temperature: 1, reasoning: {}, max_output_tokens: null },
  ...{ max_tool_calls: null, store: true, background: false, service_tier: 'default', metadata: {} },
  ...{ safety_identifier: null, prompt_cache_key: null, usage: null, output: [] },
};
const started = { ...head, status: 'in_progress' };
const part = (text: string) => ({ type: 'output_text', text, annotations: [], logprobs: [] });
const message = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  status: 'completed',
  content: [part('ab')],
};
const call = {
  id: 'fc_1',
  call_id: 'c',
  type: 'function_call',
  name: 'f',
  status: 'completed',
  arguments: '{}',
};
const at = { item_id: 'msg_1', output_index: 0, content_index: 0 };
const ofCall = { item_id: 'fc_1', output_index: 1 };
const events: readonly Json[] = [
  { type: 'response.created', response: started },
  { type: 'response.in_progress', response: started },
  {
    type: 'response.output_item.added',
    output_index: 0,
    item: { ...message, status: 'in_progress', content: [] },
  },
  { type: 'response.content_part.added', ...at, part: part('') },
  { type: 'response.output_text.delta', ...at, delta: 'a' },
  { type: 'response.output_text.delta', ...at, delta: 'b' },
  { type: 'response.output_text.done', ...at, text: 'ab' },
  { type: 'response.content_part.done', ...at, part: part('ab') },
  { type: 'response.output_item.done', output_index: 0, item: message },
  {
    type: 'response.output_item.added',
    output_index: 1,
    item: { ...call, status: 'in_progress', arguments: '' },
  },
  { type: 'response.function_call_arguments.delta', ...ofCall, delta: '{}' },
  { type: 'response.function_call_arguments.done', ...ofCall, arguments: '{}', name: 'f' },
  { type: 'response.output_item.done', output_index: 1, item: call },
  {
    type: 'response.completed',
    response: { ...head, status: 'completed', completed_at: 2, output: [message, call], usage: {} },
  },
];
const bytesOf = (list: readonly Json[]) =>
  Buffer.from(
    list
      .map(
        (event, n) => `event: ${event.type}\ndata: ${JSON.stringify({ sequence_number: n, ...event })}\n\n`,
      )
      .join(''),
  );

const faultOf = (list: readonly Json[]) => {
  const grammar = new ResponsesGrammar();
  grammar.push(bytesOf(list));
  return grammar.end();
};

test('a right stream passes', () => {
  assert.equal(faultOf(events), null);
});

test('a stream that lacks any one of its events, has it twice, or cut behind it, is refused', () => {
  for (const [at, event] of events.entries()) {
    assert.notEqual(faultOf(events.toSpliced(at, 1)), null, `without ${at}`);
    assert.notEqual(faultOf(events.toSpliced(at, 0, event)), null, `twice ${at}`);
    assert.notEqual(faultOf(events.slice(0, at)), null, `cut before ${at}`);
  }
});

test('one that is made in the background is queued first, and may end cancelled', () => {
  const queued = { ...head, background: true, status: 'queued' };
  const created = { type: 'response.created', response: queued };
  const waits = { type: 'response.queued', response: queued };
  const [, begins, ...rest] = events;
  const sequences: readonly (readonly [string | null, readonly (Json | undefined)[]])[] = [
    [null, [created, waits, begins, ...rest]],
    [
      null,
      [created, waits, begins, { type: 'response.incomplete', response: { ...head, status: 'cancelled' } }],
    ],
    ['no_in_progress', [created, waits, ...rest]],
    ['no_in_progress', [created, waits, waits, begins, ...rest]],
    ['not_begun', [created, { ...waits, response: started }, begins, ...rest]],
    ['not_begun', [created, waits, { ...begins, response: queued }, ...rest]],
    ['no_created', [waits, begins, ...rest]],
    [
      'outside_item',
      [created, waits, begins, { type: 'response.cancelled', response: { ...head, status: 'cancelled' } }],
    ],
  ];
  for (const [rule, each] of sequences) assert.equal(faultOf(each as Json[]), rule, String(rule));
});

test('two neighbours in the wrong order are refused', () => {
  for (let at = 0; at + 1 < events.length; at++) {
    const swapped = events.toSpliced(at, 2, events[at + 1] as Json, events[at] as Json);
    assert.notEqual(faultOf(swapped), null, `swapped ${at}`);
  }
});

test('the rule that each fault breaks is named', () => {
  const change = (index: number, more: Json) => events.with(index, { ...events[index], ...more });
  const last = { ...head, status: 'completed', completed_at: 2, usage: {} };
  for (const [rule, wrong] of [
    ['sequence_number', change(4, { sequence_number: 9 })],
    ['response_shape', change(0, { response: { id: 'resp_1' } })],
    ['response_id', change(1, { response: { ...started, id: 'resp_2' } })],
    ['item_id', change(4, { item_id: 'msg_2' })],
    ['outside_item', change(4, { output_index: 1 })],
    ['half_a_character', change(4, { delta: '\ud83d' })],
    ['empty_delta', change(4, { delta: '' })],
    ['text_differs', change(6, { text: 'ba' })],
    ['item_id', change(8, { item: { ...message, id: 'msg_2' } })],
    ['item_id_twice', change(9, { item: { ...call, id: 'msg_1', arguments: '' } })],
    ['item_begins_full', change(9, { item: call })],
    ['call_id', change(12, { item: { ...call, call_id: 'd' } })],
    ['item_status', change(12, { item: { ...call, status: 'in_progress' } })],
    ['response_status', change(13, { type: 'response.failed' })],
    ['output_differs', change(13, { response: { ...last, output: [message] } })],
    ['no_usage', change(13, { response: { ...last, usage: null, output: [message, call] } })],
    [
      'no_failed_behind_error',
      [...events.slice(0, 2), { type: 'error', message: 'x', error: {} }, ...events.slice(2)],
    ],
    ['after_end', [...events, { type: 'response.completed' }]],
  ] as [string, Json[]][]) {
    assert.equal(faultOf(wrong), rule);
  }
});
