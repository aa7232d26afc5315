/** What a fake neuron answers when a test does not say: a chat answer, streamed or whole. */
import { encodeFrame } from 'cortex-core/wire/token-frames';
import { sendJson } from './fake-http.ts';
import type { ChatCall } from './fake-neuron.ts';
import type { Gate } from './gate.ts';

/** Answers as a neuron does, streamed or whole, with these words. */
export function answerWords(call: ChatCall, words: readonly string[]): void {
  const request = JSON.parse(call.body.toString()) as { model: string; stream?: boolean };
  if (request.stream === true) {
    call.response.writeHead(200, { 'content-type': 'text/event-stream' });
    call.response.end(chatStream(request.model, words));
    return;
  }
  sendJson(call.response, 200, {
    id: 'chatcmpl-fake',
    object: 'chat.completion',
    created: 1,
    model: request.model,
    choices: [{ index: 0, message: { role: 'assistant', content: words.join('') }, finish_reason: 'stop' }],
    usage: usageOf(words),
  });
}

/** Begins a stream at once, as while a long prompt is read; these words come when `gate` opens. */
export function answerBehind(gate: Pick<Gate, 'opened'>, words: readonly string[] = ['done']) {
  return async ({ body, response }: ChatCall): Promise<void> => {
    const { model } = JSON.parse(body.toString()) as { readonly model: string };
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(': prefill\n\n');
    await gate.opened;
    response.end(chatStream(model, words));
  };
}

/** The SSE text of a chat answer, from the role chunk to `[DONE]`. */
export function chatStream(model: string, words: readonly string[], finish = 'stop'): string {
  const chunk = (choices: unknown[], more: object = {}): string => {
    const frame = {
      id: 'chatcmpl-fake',
      object: 'chat.completion.chunk',
      created: 1,
      model,
      choices,
      ...more,
    };
    return `data: ${JSON.stringify(frame)}\n\n`;
  };
  const delta = (value: object, reason: string | null = null): string =>
    chunk([{ index: 0, delta: value, finish_reason: reason }]);
  return [
    delta({ role: 'assistant', content: '' }),
    ...words.map((content) => delta({ content })),
    delta({}, finish),
    chunk([], { usage: usageOf(words) }),
    'data: [DONE]\n\n',
  ].join('');
}

/**
 * The frames of a chat answer whose tokens are its words: token `i` is word `i`. Goes on behind `answered`
 * tokens where the call says so, as a neuron does. The last frame is the end.
 */
export function tellFrames(call: ChatCall, words: readonly string[]): readonly string[] {
  const request = JSON.parse(call.body.toString()) as {
    readonly model: string;
    readonly cortex_continue?: { readonly tokens: readonly number[] };
  };
  const isContinued = call.headers['x-cortex-tokens'] === 'continue';
  const answered = isContinued ? (request.cortex_continue?.tokens.length ?? 0) : 0;
  if (isContinued) call.response.setHeader('x-cortex-continued', String(answered));
  const events = chatStream(request.model, words).split(/(?<=\n\n)/);
  const frames = words.map((_, at) => encodeFrame(events[at + 1] ?? '', [at]));
  frames[0] = encodeFrame(`${events[0]}${events[1]}`, [0]);
  return [...frames.slice(answered), encodeFrame(events.slice(words.length + 1).join(''), [])];
}

function usageOf(words: readonly string[]): unknown {
  const usage = { prompt_tokens: 10, completion_tokens: words.length, total_tokens: 10 + words.length };
  return { ...usage, prompt_tokens_details: { cached_tokens: 4 } };
}
