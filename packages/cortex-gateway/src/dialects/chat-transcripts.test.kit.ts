/** Chat answers of a neuron as bytes, for the tests of all that reads them: the ways an answer can go. */

const usage = {
  prompt_tokens: 30,
  completion_tokens: 12,
  total_tokens: 42,
  prompt_tokens_details: { cached_tokens: 20 },
  completion_tokens_details: { reasoning_tokens: 5 },
};

export interface Transcript {
  readonly name: string;
  readonly bytes: Buffer;
  /** Offset behind the chunk with the finish reason: a stream that is cut before it is broken off. */
  readonly wholeFrom: number;
  /** What a reader of the whole must have got. */
  readonly text: string;
  readonly reasoning: string;
  /** Name and arguments. */
  readonly calls: readonly (readonly [string, string])[];
  readonly finish: string;
}

type Delta = Readonly<Record<string, unknown>>;

const call = (index: number, args: string, name?: string): Delta => ({
  tool_calls: [
    {
      index,
      ...(name === undefined ? {} : { id: `call_${index}`, type: 'function' }),
      function: { ...(name === undefined ? {} : { name }), arguments: args },
    },
  ],
});
const say = (content: string): Delta => ({ content });
const think = (reasoning_content: string): Delta => ({ reasoning_content });

export function toTranscript(
  name: string,
  deltas: readonly Delta[],
  finish: string,
  more: Readonly<Record<string, unknown>> = {},
): Transcript {
  const frame = (choices: unknown[], extra: object = {}): string => {
    const chunk = {
      id: 'chatcmpl-7',
      object: 'chat.completion.chunk',
      created: 1,
      model: 'm',
      choices,
      ...extra,
    };
    return `data: ${JSON.stringify(chunk)}\n\n`;
  };
  const piece = (delta: Delta, reason: string | null = null, extra: object = {}): string =>
    frame([{ index: 0, delta, finish_reason: reason, ...extra }]);
  const promptUsage = { ...usage, completion_tokens: 0, total_tokens: 30 };
  const head = frame([{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }], {
    usage: promptUsage,
  });
  const until = [
    `: keep-alive\n\n`,
    head,
    ...deltas.map((delta) => piece(delta)),
    piece({}, finish, more),
  ].join('');
  const bytes = Buffer.from(`${until}${frame([], { usage })}data: [DONE]\n\n`);
  const calls: [string, string][] = [];
  let text = '';
  let reasoning = '';
  for (const delta of deltas) {
    text += (delta.content as string | undefined) ?? '';
    reasoning += (delta.reasoning_content as string | undefined) ?? '';
    for (const each of (delta.tool_calls ?? []) as {
      index: number;
      function: { name?: string; arguments: string };
    }[]) {
      const [called = each.function.name ?? '', before = ''] = calls[each.index] ?? [];
      calls[each.index] = [called, before + each.function.arguments];
    }
  }
  return { name, bytes, wholeFrom: Buffer.byteLength(until), text, reasoning, calls, finish };
}

export const transcripts: readonly Transcript[] = [
  toTranscript('text', [say('日本'), say('語 🙂'), say('\n```ts\n')], 'stop'),
  toTranscript(
    'empty and null fields',
    [
      { content: null, reasoning_content: 'hm', tool_calls: [] },
      { content: '', reasoning_content: null, tool_calls: null },
      { content: 'a', tool_calls: [] },
      { content: 'b', reasoning_content: '', refusal: null },
    ],
    'stop',
  ),
  toTranscript('nothing at all', [], 'stop'),
  toTranscript('a stop text', [say('one')], 'stop', { stop_reason: 'END' }),
  toTranscript('too long', [think('hm'), think(' 🤔'), say('on')], 'length'),
  toTranscript('a full context', [say('on')], 'length', { stop_reason: 'context_full' }),
  toTranscript('refused', [say('no')], 'content_filter'),
  toTranscript('thought alone', [think('hm')], 'length'),
  toTranscript(
    'a call',
    [think('hm'), say('I look.'), call(0, '', 'look'), call(0, '{"a":'), call(0, '"ü"}')],
    'tool_calls',
  ),
  toTranscript(
    'calls in a row',
    [call(0, '{}', 'a'), call(1, '{"x":[1,{}]}', 'b'), call(2, '', 'c')],
    'tool_calls',
  ),
  toTranscript(
    'calls that interleave',
    [
      call(0, '{"a"', 'a'),
      call(1, '{"b"', 'b'),
      call(0, ':"1'),
      call(1, ':2'),
      call(0, '"}'),
      call(1, '}'),
      say('done'),
    ],
    'tool_calls',
  ),
  toTranscript('a call cut off', [call(0, '{"path":"/tmp/a', 'write')], 'length'),
  toTranscript(
    'text between calls',
    [call(0, '{}', 'a'), say(' and '), call(1, '{}', 'b'), think('?')],
    'tool_calls',
  ),
];
