/** What a fake neuron answers when a test does not say: a chat answer, streamed or whole. */
import type { ServerResponse } from 'node:http';
import type { ChatCall } from './fake-neuron.ts';

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

function usageOf(words: readonly string[]): unknown {
  const usage = { prompt_tokens: 10, completion_tokens: words.length, total_tokens: 10 + words.length };
  return { ...usage, prompt_tokens_details: { cached_tokens: 4 } };
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}
