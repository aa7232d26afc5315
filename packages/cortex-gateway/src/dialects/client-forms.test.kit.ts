/** The clients of dialect-pairs.test.ts: what each asks, the checker of its streams, and how it reads them. */
import { SseParser } from 'cortex-core/wire/sse';
import { type End, nothingSaid, type Said } from './answer-scripts.test.kit.ts';
import { anthropicMessages } from './anthropic.ts';
import type { Dialect } from './dialect.ts';
import { ollamaChat, ollamaGenerate } from './ollama/ollama.ts';
import { openAiChat, openAiCompletions } from './openai.ts';
import { type ResponsesDeps, readResponse, responsesWire } from './responses/responses.ts';
import { TurnFitter } from './responses/truncation.ts';

export interface ClientForm {
  readonly name: string;
  readonly dialect: Dialect;
  readonly ask: object;
  /** Of a stream that keeps the dialect's grammar. */
  readonly read: (bytes: Uint8Array) => Said;
  /** How it tells the end of an answer that upstream ended so. */
  readonly tells: (end: End) => End;
}

type Json = Readonly<Record<string, unknown>>;
// biome-ignore lint/suspicious/noExplicitAny: what a client reads has the shape that its checker has seen
type Read = any;

const messages = [{ role: 'user', content: 'hi' }];
const options = { stream: true, stream_options: { include_usage: true } };

const responses = (): Dialect => {
  let count = 0;
  const deps: ResponsesDeps = {
    store: { keeps: false, find: () => null, findItem: () => null, put: () => {}, whyMissing: () => '' },
    newId: (prefix) => {
      if (prefix === 'resp') count = 0; // the first id of an answer
      return `${prefix}_${++count}`;
    },
    nowSecs: () => 1,
    contextOf: () => null,
    fitter: new TurnFitter(),
  };
  return { ...responsesWire, parse: (body, options) => readResponse(body, deps, options).request };
};
const same = (name: string): string => name;

export const clientForms: readonly ClientForm[] = [
  {
    name: 'chat',
    dialect: openAiChat,
    ask: { model: 'm', messages, ...options },
    read: readOpenAi,
    tells: (end) => (end === 'stop_text' ? 'stop' : end),
  },
  {
    name: 'completions',
    dialect: openAiCompletions,
    ask: { model: 'm', prompt: 'hi', ...options },
    read: readOpenAi,
    tells: (end) => (end === 'stop_text' ? 'stop' : end),
  },
  {
    name: 'messages',
    dialect: anthropicMessages,
    ask: { model: 'm', max_tokens: 9, stream: true, messages },
    read: readMessages,
    tells: (end) => end,
  },
  {
    name: 'responses',
    dialect: responses(),
    ask: { model: 'm', input: 'hi', stream: true },
    read: readResponses,
    tells: (end) => (end === 'stop_text' || end === 'calls' ? 'stop' : end),
  },
  ...(
    [
      ['ollama-chat', ollamaChat(same), { messages }],
      ['ollama-generate', ollamaGenerate(same), { prompt: 'hi' }],
      ['ollama-raw', ollamaGenerate(same), { prompt: 'hi', raw: true }],
    ] as const
  ).map(
    ([name, dialect, ask]): ClientForm => ({
      name,
      dialect,
      ask: { model: 'm', ...ask },
      read: readOllama,
      tells: (end) => (end === 'length' || end === 'error' ? end : 'stop'),
    }),
  ),
];

function eventsOf(bytes: Uint8Array): Read[] {
  const events = new SseParser().push(bytes).filter(({ data }) => data !== '[DONE]');
  return events.map(({ data }) => JSON.parse(data) as Json);
}

const openAiEnds: Readonly<Record<string, End>> = {
  stop: 'stop',
  length: 'length',
  tool_calls: 'calls',
  content_filter: 'refusal',
};

function readOpenAi(bytes: Uint8Array): Said {
  const said = nothingSaid();
  for (const { choices = [], usage, error } of eventsOf(bytes)) {
    if (error) said.end = 'error';
    for (const { text, delta = {}, finish_reason: reason } of choices) {
      said.text += text ?? (delta.content ?? '') + (delta.refusal ?? '');
      said.reasoning += delta.reasoning_content ?? '';
      for (const { index, function: given } of delta.tool_calls ?? []) {
        const [name, args] = said.calls[index] ?? [given.name, ''];
        said.calls[index] = [name, args + given.arguments];
      }
      if (reason) said.end = openAiEnds[reason] ?? null;
    }
    if (usage) {
      const cached = usage.prompt_tokens_details.cached_tokens;
      said.usage = [usage.prompt_tokens, cached, usage.completion_tokens];
    }
  }
  return said;
}

const messagesEnds: Readonly<Record<string, End>> = {
  end_turn: 'stop',
  max_tokens: 'length',
  tool_use: 'calls',
  refusal: 'refusal',
  stop_sequence: 'stop_text',
};

function readMessages(bytes: Uint8Array): Said {
  const said = nothingSaid();
  let input: Read = {};
  for (const { type, message, content_block: block, delta, usage } of eventsOf(bytes)) {
    if (type === 'error') said.end = 'error';
    if (type === 'message_start') input = message.usage;
    if (block?.type === 'tool_use') said.calls.push([block.name, '']);
    said.text += delta?.text ?? '';
    said.reasoning += delta?.thinking ?? '';
    const last = said.calls.at(-1);
    if (last !== undefined) last[1] += delta?.partial_json ?? '';
    if (type !== 'message_delta') continue;
    said.end = messagesEnds[delta.stop_reason] ?? null;
    const { input_tokens: prompt, cache_read_input_tokens: cached } = { ...input, ...usage };
    said.usage = [prompt + cached, cached, usage.output_tokens];
  }
  return said;
}

function readResponses(bytes: Uint8Array): Said {
  const said = nothingSaid();
  const calls = new Map<number, [string, string]>();
  for (const { type, item, output_index: index, delta, response } of eventsOf(bytes)) {
    if (/output_text\.delta$/.test(type)) said.text += delta;
    if (/reasoning_\w*text\.delta$/.test(type)) said.reasoning += delta;
    if (type === 'response.output_item.added' && item.type === 'function_call')
      calls.set(index, [item.name, '']);
    const call = calls.get(index);
    if (/arguments\.delta$/.test(type) && call !== undefined) call[1] += delta;
    if (type === 'response.completed') said.end = 'stop';
    if (type === 'response.failed') said.end = 'error';
    if (type === 'response.incomplete') {
      said.end = response.incomplete_details.reason === 'content_filter' ? 'refusal' : 'length';
    }
    if (/completed$|incomplete$/.test(type)) {
      const { input_tokens: prompt, input_tokens_details: details, output_tokens: output } = response.usage;
      said.usage = [prompt, details.cached_tokens, output];
    }
  }
  said.calls.push(...[...calls].sort(([a], [b]) => a - b).map(([, call]) => call));
  return said;
}

/** Ollama tells nothing of cached tokens. */
function readOllama(bytes: Uint8Array): Said {
  const said = nothingSaid();
  const lines = Buffer.from(bytes).toString().split('\n').filter(Boolean);
  for (const line of lines) {
    const { message, response, thinking, error, ...rest } = JSON.parse(line) as Read;
    if (error) said.end = 'error';
    said.text += message?.content ?? response ?? '';
    said.reasoning += message?.thinking ?? thinking ?? '';
    for (const { function: given } of message?.tool_calls ?? rest.tool_calls ?? []) {
      said.calls.push([given.name, JSON.stringify(given.arguments)]);
    }
    if (rest.done === true) {
      said.end = rest.done_reason;
      const isTold = rest.eval_count !== undefined;
      said.usage = isTold ? [rest.prompt_eval_count, 0, rest.eval_count] : null;
    }
  }
  return said;
}
