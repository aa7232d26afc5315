/**
 * The grammar of the Responses API's stream, as its strict readers have it:
 *
 *     stream := created queued? in_progress item* (completed | incomplete | error? failed)
 *
 * Calls may interleave by output_index; messages and reasoning stand alone. Each item: added, its part added,
 * deltas, done with the same text, part done, item done. Numbers count from 0, ids and call_ids stay, and the
 * last output is what the items were.
 */
import type { SseEvent } from 'cortex-core/wire/sse';
import type { JsonObject } from '../request-body.ts';
import { jsonOf, objectOf, SseGrammar } from './wire-grammar.ts';

interface SeenItem {
  readonly id: unknown;
  readonly type: string;
  readonly callId: unknown;
  part: 'none' | 'open' | 'closed';
  text: string;
  isTextDone: boolean;
  /** As JSON. */
  done: string | null;
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
const textsOf: Readonly<Record<string, readonly string[]>> = {
  message: ['output_text'],
  reasoning: ['reasoning_text', 'reasoning_summary_text'],
  function_call: ['function_call_arguments'],
  custom_tool_call: ['custom_tool_call_input'],
};

export class ResponsesGrammar extends SseGrammar {
  #state: 'open' | 'failing' | 'over' = 'open';
  #count = 0;
  #isBegun = false;
  #id: unknown = null;
  readonly #items: SeenItem[] = [];

  protected check({ event, data }: SseEvent): string | null {
    if (this.#state === 'over') return 'after_end';
    const value = jsonOf(data);
    if (value === null) return 'not_json';
    if (value.type !== event) return 'event_name';
    if (value.sequence_number !== this.#count) return 'sequence_number';
    const at = this.#count++;
    if (at === 0) return event === 'response.created' ? this.#head(value) : 'no_created';
    if (at === 1 && event === 'response.queued') return this.#head(value);
    if (!this.#isBegun) return event === 'response.in_progress' ? this.#head(value) : 'no_in_progress';
    if (this.#state === 'failing' && event !== 'response.failed') return 'no_failed_behind_error';
    switch (event) {
      case 'error':
        this.#state = 'failing';
        return typeof value.message === 'string' && objectOf(value.error) !== null ? null : 'error_shape';
      case 'response.output_item.added':
        return this.#added(value);
      case 'response.output_item.done':
        return this.#done(value);
      case 'response.completed':
      case 'response.incomplete':
      case 'response.failed':
        return this.#end(event, value);
      default:
        return this.#inside(event, value);
    }
  }

  protected checkEnd(): string | null {
    return this.#state === 'over' ? null : 'no_end';
  }

  #head({ response, type: event }: JsonObject): string | null {
    const head = objectOf(response);
    const fault = faultOfResponse(head);
    if (fault !== null) return fault;
    this.#id ??= head?.id;
    if (head?.id !== this.#id) return 'response_id';
    const isEmpty = Array.isArray(head?.output) && head.output.length === 0;
    if (!isEmpty) return 'not_begun';
    // what is queued is said to be until it begins
    if (head?.status === 'queued') return event === 'response.in_progress' ? 'not_begun' : null;
    if (head?.status !== 'in_progress' || event === 'response.queued') return 'not_begun';
    this.#isBegun = event === 'response.in_progress';
    return null;
  }

  #added({ output_index: index, item }: JsonObject): string | null {
    const added = objectOf(item);
    if (index !== this.#items.length) return 'output_index';
    if (typeof added?.id !== 'string' || typeof added.type !== 'string') return 'item_shape';
    if (this.#items.some(({ id }) => id === added.id)) return 'item_id_twice';
    const { id, type, call_id: callId = null } = added;
    const open = this.#items.filter(({ done }) => done === null);
    if (open.some(isProse) || (open.length > 0 && isProse({ type }))) return 'text_beside_open_item';
    if ((textOf(added) ?? '') !== '') return 'item_begins_full';
    this.#items.push({ id, type, callId, part: 'none', text: '', isTextDone: false, done: null });
    return null;
  }

  #inside(event: string, value: JsonObject): string | null {
    const item = this.#items[Number(value.output_index)];
    if (item === undefined || item.done !== null) return 'outside_item';
    if (value.item_id !== item.id) return 'item_id';
    const partText = objectOf(value.part)?.text;
    if (/part\.added$/.test(event)) {
      if (item.part !== 'none' || partText !== '') return 'part_added';
      item.part = 'open';
      return null;
    }
    if (/part\.done$/.test(event)) {
      if (item.part !== 'open' || !item.isTextDone || partText !== item.text) return 'part_done';
      item.part = 'closed';
      return null;
    }
    const [, name = '', kind] = /^response\.(\w+)\.(delta|done)$/.exec(event) ?? [];
    if (textsOf[item.type]?.includes(name) !== true) return 'event_kind';
    if (isProse(item) && item.part !== 'open') return 'text_outside_part';
    if (item.isTextDone) return 'text_after_done';
    if (kind === 'done') {
      item.isTextDone = true;
      return (value.text ?? value.arguments ?? value.input) === item.text ? null : 'text_differs';
    }
    if (typeof value.delta !== 'string' || value.delta === '') return 'empty_delta';
    item.text += value.delta;
    return /\p{Surrogate}/u.test(value.delta) ? 'half_a_character' : null;
  }

  #done({ output_index: index, item }: JsonObject): string | null {
    const seen = this.#items[Number(index)];
    const done = objectOf(item);
    if (seen === undefined || seen.done !== null) return 'item_done';
    if (done?.id !== seen.id || done?.type !== seen.type) return 'item_id';
    if ((done.call_id ?? null) !== seen.callId) return 'call_id';
    if (done.status !== 'completed' && done.status !== 'incomplete') return 'item_status';
    if (seen.part === 'open') return 'part_left_open';
    seen.done = JSON.stringify(done);
    if (textsOf[seen.type] === undefined) return null;
    if (!seen.isTextDone) return 'text_left_open';
    return textOf(done) === seen.text ? null : 'text_differs';
  }

  #end(event: string, { response }: JsonObject): string | null {
    this.#state = 'over';
    const end = objectOf(response);
    const fault = faultOfResponse(end);
    if (fault !== null || end === null) return fault;
    if (end.id !== this.#id) return 'response_id';
    const isCancelled = end.status === 'cancelled';
    if (event !== (isCancelled ? 'response.incomplete' : `response.${String(end.status)}`))
      return 'response_status';
    const isFailed = end.status === 'failed' || isCancelled;
    if (!isFailed && objectOf(end.usage) === null) return 'no_usage';
    const output = end.output as readonly unknown[];
    if (output.length !== this.#items.length) return 'output_differs';
    const isWrong = this.#items.some(({ id, done }, at) => {
      if (done === null) return !isFailed || objectOf(output[at])?.id !== id;
      return JSON.stringify(output[at]) !== done;
    });
    return isWrong ? 'output_differs' : null;
  }
}

/** Every field is there, and the status agrees with the rest. Null = nothing is wrong. */
export function faultOfResponse(response: JsonObject | null): string | null {
  if (response === null || responseFields.some((field) => !(field in response))) return 'response_shape';
  const { id, status, error, incomplete_details: cut, completed_at: completed, output } = response;
  if (typeof id !== 'string' || !id.startsWith('resp_') || !Array.isArray(output)) return 'response_shape';
  const isRight =
    (status === 'failed') === (error !== null) &&
    (status === 'incomplete') === (cut !== null) &&
    (status === 'completed') === (completed !== null);
  if (!isRight) return 'response_status';
  const ids = output
    .flatMap((item: JsonObject) => [item.id, item.call_id])
    .filter((each) => each !== undefined);
  return new Set(ids).size === ids.length ? null : 'ids_shared';
}

function isProse({ type }: { readonly type: string }): boolean {
  return type === 'message' || type === 'reasoning';
}

function textOf(item: JsonObject): unknown {
  if (typeof item.input === 'string') return item.input;
  if (typeof item.arguments === 'string') return item.arguments;
  const parts = [item.content, item.summary].flatMap((list) => (Array.isArray(list) ? list : []));
  return objectOf(parts[0])?.text;
}
