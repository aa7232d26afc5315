/**
 * Holds a stream of the Responses API to its grammar, as strict clients read it. Returns the final response
 * and all events, or throws an Error that names the event at fault.
 *
 *     stream := created in_progress item* (completed | incomplete | error? failed)
 *
 * Calls may interleave by output_index, messages and reasoning stand alone. Each item:
 * added, its part added, deltas, done with the same text, part done, item done; ids and call_ids stay, texts
 * add up, and the final output is what the items were.
 */
import { isDeepStrictEqual } from 'node:util';
import { SseParser } from 'cortex-core/wire/sse';

type Json = Record<string, unknown>;

export interface CheckedStream {
  readonly events: readonly Json[];
  readonly response: Json;
}

interface SeenItem {
  readonly id: string;
  readonly type: string;
  readonly item: Json;
  part: 'none' | 'open' | 'closed';
  text: string;
  isTextDone: boolean;
  done: Json | null;
}

const responseFields = [
  ...[
    'id',
    'object',
    'created_at',
    'completed_at',
    'status',
    'incomplete_details',
    'model',
    'output',
    'error',
  ],
  ...['previous_response_id', 'instructions', 'tools', 'tool_choice', 'truncation', 'parallel_tool_calls'],
  ...['text', 'top_p', 'presence_penalty', 'frequency_penalty', 'top_logprobs', 'temperature', 'reasoning'],
  ...['usage', 'max_output_tokens', 'max_tool_calls', 'store', 'background', 'service_tier', 'metadata'],
  ...['safety_identifier', 'prompt_cache_key'],
];
const textEvents: Readonly<Record<string, readonly string[]>> = {
  message: ['output_text'],
  reasoning: ['reasoning_text', 'reasoning_summary_text'],
  function_call: ['function_call_arguments'],
  custom_tool_call: ['custom_tool_call_input'],
};

export function checkResponsesStream(bytes: Uint8Array): CheckedStream {
  const check = new StreamCheck();
  const events: Json[] = [];
  for (const { event, data } of new SseParser().push(bytes)) {
    const json = JSON.parse(data) as Json;
    expect(event === json.type, `event line "${event}" of ${String(json.type)}`);
    expect(json.sequence_number === events.length, `sequence_number ${String(json.sequence_number)}`);
    events.push(json);
    try {
      check.take(json);
    } catch (cause) {
      throw new Error(`event ${events.length - 1}, ${data.slice(0, 300)}`, { cause });
    }
  }
  expect(check.final !== null, 'the stream has no end');
  return { events, response: check.final as Json };
}

/** Every field there, and the status in agreement with the rest. */
export function checkResponse(response: Json): void {
  for (const field of responseFields) expect(field in response, `response.${field} is missing`);
  expect(/^resp_\w+$/.test(String(response.id)), 'the id of the response');
  const { status, error, incomplete_details: cut, completed_at: completed, output } = response;
  expect((status === 'failed') === (error !== null), 'error where it failed, and only there');
  expect((status === 'incomplete') === (cut !== null), 'incomplete_details');
  expect((status === 'completed') === (completed !== null), 'completed_at');
  const ids = (output as Json[]).flatMap((item) => [item.id, item.call_id ?? `${String(item.id)}'s own`]);
  expect(new Set(ids).size === ids.length, 'ids and call_ids differ');
}

class StreamCheck {
  final: Json | null = null;
  #count = 0;
  #id: unknown = null;
  #failing = false;
  readonly #items: SeenItem[] = [];

  take(event: Json): void {
    const type = String(event.type);
    expect(this.final === null, 'nothing may follow the end');
    const at = this.#count++;
    if (at < 2) {
      this.#head(event, ['response.created', 'response.in_progress'][at] as string);
      return;
    }
    if (this.#failing) expect(type === 'response.failed', 'failed follows error');
    if (type === 'error') {
      expect(typeof event.message === 'string' && typeof event.error === 'object', 'what the error says');
      this.#failing = true;
    } else if (type === 'response.output_item.added') this.#added(event);
    else if (type === 'response.output_item.done') this.#done(event);
    else if (/^response\.(completed|incomplete|failed)$/.test(type)) this.#end(event);
    else this.#inside(event, type);
  }

  #head(event: Json, type: string): void {
    expect(event.type === type, `${type} comes here`);
    const response = event.response as Json;
    checkResponse(response);
    expect(response.status === 'in_progress', 'in progress');
    expect((response.output as Json[]).length === 0, 'no output yet');
    this.#id ??= response.id;
    expect(response.id === this.#id, 'one id');
  }

  #added(event: Json): void {
    const item = event.item as Json;
    expect(event.output_index === this.#items.length, 'output_index counts up');
    expect(!this.#items.some(({ id }) => id === item.id), 'an id of its own');
    const [id, type] = [String(item.id), String(item.type)];
    const isProse = (each: { readonly type: string }) => /message|reasoning/.test(each.type);
    const open = this.#items.filter(({ done }) => done === null);
    expect(!open.some(isProse) && (open.length === 0 || !isProse({ type })), 'text stands alone');
    if (type === 'message') expect((item.content as []).length === 0, 'no content yet');
    if (type === 'function_call')
      expect(item.arguments === '' && typeof item.name === 'string', 'no arguments');
    if (type === 'custom_tool_call') expect(item.input === '', 'no input yet');
    if (type === 'reasoning') expect((item.summary as []).length === 0, 'no summary yet');
    this.#items.push({ id, type, item, part: 'none', text: '', isTextDone: false, done: null });
  }

  #inside(event: Json, type: string): void {
    const item = this.#items[event.output_index as number];
    if (item === undefined) throw new Error('of an item that was not added');
    expect(item.done === null, 'its item is done');
    expect(event.item_id === item.id, 'item_id');
    if (/part\.added$/.test(type)) {
      expect(item.part === 'none' && (event.part as Json).text === '', 'a part opens once, empty');
      item.part = 'open';
      return;
    }
    if (/part\.done$/.test(type)) {
      expect(item.part === 'open' && item.isTextDone, 'a part closes behind its text');
      expect((event.part as Json).text === item.text, 'the text of the part');
      item.part = 'closed';
      return;
    }
    const match = /^response\.(\w+)\.(delta|done)$/.exec(type);
    expect(textEvents[item.type]?.includes(match?.[1] ?? '') === true, `no event of a ${item.type}`);
    expect(!/message|reasoning/.test(item.type) || item.part === 'open', 'inside a part');
    expect(!item.isTextDone, 'its text is done');
    if (match?.[2] === 'delta') {
      expect(typeof event.delta === 'string' && event.delta !== '', 'a delta that says something');
      expect(!/\p{Surrogate}/u.test(event.delta as string), 'whole characters');
      item.text += event.delta as string;
      return;
    }
    expect((event.text ?? event.arguments ?? event.input) === item.text, 'the deltas add up');
    item.isTextDone = true;
  }

  #done(event: Json): void {
    const seen = this.#items[event.output_index as number];
    const item = event.item as Json;
    if (seen === undefined || seen.done !== null) throw new Error('done once, after it was added');
    expect(item.id === seen.id && item.type === seen.type && item.call_id === seen.item.call_id, 'the same');
    expect(item.status === 'completed' || item.status === 'incomplete', 'a status of its end');
    if (textEvents[seen.type] !== undefined) {
      expect(seen.isTextDone, 'its text is done');
      expect(textOf(item) === seen.text, 'its text is that of the deltas');
    }
    expect(seen.part !== 'open', 'its part is closed');
    seen.done = item;
  }

  #end(event: Json): void {
    const response = event.response as Json;
    checkResponse(response);
    expect(response.id === this.#id && `response.${String(response.status)}` === event.type, 'its status');
    const output = response.output as Json[];
    expect(output.length === this.#items.length, 'every item is in the output');
    for (const [at, { done, id }] of this.#items.entries()) {
      if (done === null) expect(response.status === 'failed' && output[at]?.id === id, 'an open item');
      else expect(isDeepStrictEqual(output[at], done), 'the output is what the items were');
    }
    if (response.status !== 'failed') expect(response.usage !== null, 'usage');
    this.final = response;
  }
}

function textOf(item: Json): unknown {
  const [part] = [...((item.content as Json[]) ?? []), ...((item.summary as Json[]) ?? [])];
  return item.arguments ?? item.input ?? part?.text;
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`not so: ${what}`);
}
