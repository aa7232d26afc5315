/** Answers as scripts, and each as the bytes of every kind of upstream: what dialect-pairs.test.ts replays. */

type Step =
  | { readonly text: string }
  | { readonly think: string }
  | { readonly refuse: string }
  /** A name begins the call; arguments in pieces. */
  | { readonly call: number; readonly name?: string; readonly args?: string };

export type End = 'stop' | 'length' | 'calls' | 'refusal' | 'stop_text' | 'error';

export interface Script {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly end: End;
  /** What clients get of it stands in golden/. */
  readonly isGolden?: boolean;
  /** Upstream tells none. */
  readonly withoutUsage?: boolean;
}

/** What an answer says, whoever reads it. */
export interface Said {
  text: string;
  reasoning: string;
  /** Name and arguments. */
  readonly calls: [string, string][];
  /** Null = it has not ended. */
  end: End | null;
  /** Prompt, cached, completion; null = not told. */
  usage: readonly [number, number, number] | null;
}

export const nothingSaid = (): Said => ({ text: '', reasoning: '', calls: [], end: null, usage: null });

/** One event of an upstream, and what is said with it; `end` and `usage` count from its last byte on. */
export interface Frame {
  readonly bytes: Buffer;
  readonly said: Step | { readonly end: End } | { readonly usage: Said['usage'] } | null;
}

export type UpstreamForm = 'chat' | 'completions' | 'messages';

const fault = 'the device died';
const usage = [30, 20, 12] as const;
const chatUsage = {
  prompt_tokens: usage[0],
  completion_tokens: usage[2],
  total_tokens: usage[0] + usage[2],
  prompt_tokens_details: { cached_tokens: usage[1] },
};
const finishes: Readonly<Record<End, string>> = {
  stop: 'stop',
  length: 'length',
  calls: 'tool_calls',
  refusal: 'content_filter',
  stop_text: 'stop',
  error: '',
};

/** Null: the form has no way to say it. */
export function toFrames(script: Script, form: UpstreamForm): readonly Frame[] | null {
  if (form === 'messages') return script.steps.some(isInterleaved(script)) ? null : toMessages(script);
  if (form === 'completions' && script.steps.some((step) => !('text' in step))) return null;
  return toChat(script, form);
}

function toChat({ steps, end, withoutUsage }: Script, form: 'chat' | 'completions'): readonly Frame[] {
  const object = form === 'chat' ? 'chat.completion.chunk' : 'text_completion';
  const frame = (fields: object, said: Frame['said']): Frame => {
    const chunk = { id: 'c-1', object, created: 1, model: 'w', ...fields };
    return { bytes: Buffer.from(`data: ${JSON.stringify(chunk)}\n\n`), said };
  };
  const piece = (given: object, said: Frame['said'], more: object = { finish_reason: null }): Frame =>
    frame({ choices: [{ index: 0, ...given, ...more }] }, said);
  const bare = (text: string): Frame => ({ bytes: Buffer.from(text), said: null });
  const isChat = form === 'chat';
  const pieces = steps.map((step) =>
    piece(isChat ? { delta: toDelta(step) } : { text: 'text' in step ? step.text : '' }, step),
  );
  const head = isChat ? [piece({ delta: { role: 'assistant', content: '' } }, null)] : [];
  if (end === 'error') {
    const error = { bytes: bare(`data: {"error":{"message":"${fault}","code":"device_gone"}}\n\n`).bytes };
    return [bare(': keep-alive\n\n'), ...head, ...pieces, { ...error, said: { end } }];
  }
  const stop = end === 'stop_text' ? { stop_reason: 'END' } : {};
  const last = piece(
    isChat ? { delta: {} } : { text: '' },
    { end },
    { finish_reason: finishes[end], ...stop },
  );
  const told = withoutUsage ? [] : [frame({ choices: [], usage: chatUsage }, { usage })];
  return [bare(': keep-alive\n\n'), ...head, ...pieces, last, ...told, bare('data: [DONE]\n\n')];
}

function toDelta(step: Step): object {
  if ('text' in step) return { content: step.text };
  if ('think' in step) return { reasoning_content: step.think };
  if ('refuse' in step) return { refusal: step.refuse };
  const { call: index, name, args = '' } = step;
  const head = name === undefined ? {} : { id: `call_${index}`, type: 'function' };
  return {
    tool_calls: [{ index, ...head, function: { ...(name === undefined ? {} : { name }), arguments: args } }],
  };
}

/** The Messages API has one block after the other, and a refusal is text. */
function toMessages({ steps, end, withoutUsage }: Script): readonly Frame[] {
  const event = (type: string, fields: object, said: Frame['said'] = null): Frame => ({
    bytes: Buffer.from(`event: ${type}\ndata: ${JSON.stringify({ type, ...fields })}\n\n`),
    said,
  });
  const told = withoutUsage ? {} : { cache_read_input_tokens: usage[1] };
  const message = {
    ...{ id: 'msg_1', type: 'message', role: 'assistant', model: 'w', content: [] },
    ...{ stop_reason: null, stop_sequence: null },
    usage: { input_tokens: withoutUsage ? 0 : usage[0] - usage[1], output_tokens: 0, ...told },
  };
  const frames: Frame[] = [event('message_start', { message }), event('ping', {})];
  let index = -1;
  let open: string | null = null;
  const close = (): void => {
    if (open === 'thinking') delta({ type: 'signature_delta', signature: 's' }, null);
    if (open !== null) frames.push(event('content_block_stop', { index }));
    open = null;
  };
  const begin = (kind: string, block: object, said: Frame['said'] = null): void => {
    close();
    index++;
    open = kind;
    frames.push(event('content_block_start', { index, content_block: block }, said));
  };
  const delta = (fields: object, said: Frame['said']): void =>
    void frames.push(event('content_block_delta', { index, delta: fields }, said));
  for (const step of steps) {
    if ('text' in step || 'refuse' in step) {
      if (open !== 'text') begin('text', { type: 'text', text: '' });
      delta({ type: 'text_delta', text: 'text' in step ? step.text : step.refuse }, step);
    } else if ('think' in step) {
      if (open !== 'thinking') begin('thinking', { type: 'thinking', thinking: '', signature: '' });
      delta({ type: 'thinking_delta', thinking: step.think }, step);
    } else {
      const { call, name, args = '' } = step;
      if (name !== undefined) {
        begin(`call ${call}`, { type: 'tool_use', id: `call_${call}`, name, input: {} }, { call, name });
      }
      if (args !== '') delta({ type: 'input_json_delta', partial_json: args }, { call, args });
    }
  }
  if (end === 'error') {
    return [...frames, event('error', { error: { type: 'api_error', message: fault } }, { end })];
  }
  close();
  const stop_reason = { ...finishes, stop: 'end_turn', length: 'max_tokens', calls: 'tool_use' };
  const reason = { ...stop_reason, refusal: 'refusal', stop_text: 'stop_sequence' }[end];
  const stop = { stop_reason: reason, stop_sequence: end === 'stop_text' ? 'END' : null };
  const counted = { output_tokens: withoutUsage ? 0 : usage[2] };
  frames.push(event('message_delta', { delta: stop, usage: counted }, withoutUsage ? null : { usage }));
  return [...frames, event('message_stop', {}, { end })];
}

/** A step of a call that is not the last that began. */
function isInterleaved({ steps }: Script): (step: Step, at: number) => boolean {
  return (step, at) => {
    if (!('call' in step) || step.name !== undefined) return false;
    const before = steps.slice(0, at).findLast((each) => !('call' in each) || each.name !== undefined);
    return before === undefined || !('call' in before) || before.call !== step.call;
  };
}

/** What the frames say that are whole in the first `bytes`. */
export function saidWithin(frames: readonly Frame[], bytes: number): Said {
  const said = nothingSaid();
  let at = 0;
  for (const frame of frames) {
    at += frame.bytes.length;
    if (at > bytes) return said;
    if (frame.said !== null) addTo(said, frame.said);
  }
  return said;
}

function addTo(said: Said, step: NonNullable<Frame['said']>): void {
  if ('text' in step) said.text += step.text;
  else if ('refuse' in step) said.text += step.refuse;
  else if ('think' in step) said.reasoning += step.think;
  else if ('end' in step) said.end = step.end;
  else if ('usage' in step) said.usage = step.usage;
  else {
    const [name, args] = said.calls[step.call] ?? [step.name ?? '', ''];
    said.calls[step.call] = [name, args + (step.args ?? '')];
  }
}

export const scripts: readonly Script[] = [
  { name: 'text', steps: [{ text: '日本' }, { text: '語 🙂' }, { text: '\n\n"a"\n' }], end: 'stop' },
  { name: 'no text', steps: [], end: 'stop' },
  { name: 'no usage', steps: [{ text: 'a' }], end: 'stop', withoutUsage: true },
  { name: 'a stop text', steps: [{ text: 'one' }], end: 'stop_text' },
  { name: 'cut off at its limit', steps: [{ text: 'one ' }, { text: 'tw' }], end: 'length', isGolden: true },
  { name: 'reasoning', steps: [{ think: 'hm' }, { think: ' 🤔' }, { text: 'so' }], end: 'stop' },
  {
    name: 'several calls',
    steps: [
      ...[{ think: 'hm' }, { text: 'I look.' }],
      ...[
        { call: 0, name: 'look' },
        { call: 0, args: '{"at":' },
        { call: 0, args: '"ü🙂"}' },
      ],
      ...[
        { call: 1, name: 'list', args: '{}' },
        { call: 2, name: 'stat' },
      ],
    ],
    end: 'calls',
  },
  {
    name: 'calls that interleave',
    steps: [
      ...[
        { call: 0, name: 'a', args: '{"a"' },
        { call: 1, name: 'b', args: '{"b"' },
      ],
      ...[{ call: 0, args: ':1}' }, { call: 1, args: ':2}' }, { text: 'done' }],
    ],
    end: 'calls',
  },
  { name: 'a call cut off', steps: [{ call: 0, name: 'write', args: '{"path":"/t' }], end: 'length' },
  {
    name: 'a call that lost its end',
    steps: [
      { call: 0, name: 'list', args: '{}' },
      { call: 1, name: 'write', args: '{"path":"/t' },
    ],
    end: 'calls',
    isGolden: true,
  },
  { name: 'refused', steps: [{ text: 'no' }], end: 'refusal' },
  {
    name: 'refused in its own words',
    steps: [{ refuse: 'I ' }, { refuse: 'won’t' }],
    end: 'refusal',
    isGolden: true,
  },
  { name: 'an error behind text', steps: [{ text: 'on' }, { text: 'e ü' }], end: 'error', isGolden: true },
  { name: 'an error in a call', steps: [{ call: 0, name: 'a', args: '{"a"' }], end: 'error' },
  { name: 'an error at once', steps: [], end: 'error' },
];
