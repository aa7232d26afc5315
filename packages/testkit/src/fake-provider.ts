/** A hosted service that a test scripts: OpenAI's chat or Anthropic's Messages, as the test wants them. */
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { chatStream } from './fake-answers.ts';
import { readAll, sendJson } from './fake-http.ts';

export interface ProviderCall {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly raw: Buffer;
  readonly body: Readonly<Record<string, unknown>>;
  readonly response: ServerResponse;
}

export class FakeProvider {
  readonly calls: ProviderCall[] = [];
  readonly #server: Server;
  onCall: (call: ProviderCall) => Promise<void> | void;

  constructor(kind: 'openai' | 'anthropic') {
    this.onCall = kind === 'openai' ? answerChat : answerMessage;
    this.#server = createServer(async (request, response) => {
      const raw = await readAll(request).catch(() => Buffer.alloc(0));
      const body = JSON.parse(raw.toString() || '{}') as ProviderCall['body'];
      const call = { path: request.url ?? '', headers: request.headers, raw, body, response };
      this.calls.push(call);
      await this.onCall(call);
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host: '127.0.0.1', port: 0 }, () => resolve());
    });
  }

  /** Idempotent. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

export async function startFakeProvider(kind: 'openai' | 'anthropic'): Promise<FakeProvider> {
  const provider = new FakeProvider(kind);
  await provider.listen();
  return provider;
}

/** With these headers, should the answer carry some. */
export function sendStream(response: ServerResponse, text: string, headers: object = {}): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', ...headers });
  response.end(text);
}

function answerChat({ body, response }: ProviderCall): void {
  if (body.stream === true) {
    sendStream(response, chatStream(String(body.model), ['from', ' afar']));
    return;
  }
  if ('input' in body) {
    const data = [{ object: 'embedding', index: 0, embedding: [0.5] }];
    sendJson(response, 200, { object: 'list', data, usage: { prompt_tokens: 2, total_tokens: 2 } });
    return;
  }
  const message = { role: 'assistant', content: 'from afar' };
  sendJson(response, 200, {
    id: 'chatcmpl-far',
    object: 'chat.completion',
    created: 1,
    model: body.model,
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: { prompt_tokens: 10, completion_tokens: 2, total_tokens: 12 },
  });
}

function answerMessage({ body, response }: ProviderCall): void {
  const blocks = [{ type: 'text', text: 'from afar' }] as const;
  if (body.stream === true) sendStream(response, messageStream(blocks));
  else sendJson(response, 200, messageOf(blocks));
}

export type FakeBlock =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'thinking'; readonly thinking: string; readonly signature: string }
  | { readonly type: 'tool_use'; readonly id: string; readonly name: string; readonly input: object };

const usage = {
  input_tokens: 6,
  cache_read_input_tokens: 3,
  cache_creation_input_tokens: 1,
  output_tokens: 5,
};

/** A whole message of these blocks. */
export function messageOf(blocks: readonly FakeBlock[], stop = 'end_turn', stopText: string | null = null) {
  return {
    ...{ id: 'msg_far', type: 'message', role: 'assistant', model: 'claude-far', content: blocks },
    ...{ stop_reason: stop, stop_sequence: stopText, usage },
  };
}

/** Its stream, with a ping behind the beginning and texts in pieces of three characters. */
export function messageStream(
  blocks: readonly FakeBlock[],
  stop = 'end_turn',
  stopText: string | null = null,
): string {
  const frame = (event: { readonly type: string; readonly [field: string]: unknown }): string =>
    `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
  const start = { ...messageOf([]), stop_reason: null, usage: { ...usage, output_tokens: 1 } };
  const body = blocks.flatMap((block, index) => {
    const delta = (value: object): string => frame({ type: 'content_block_delta', index, delta: value });
    const [empty, deltas] = piecesOf(block, delta);
    return [
      frame({ type: 'content_block_start', index, content_block: empty }),
      ...deltas,
      frame({ type: 'content_block_stop', index }),
    ];
  });
  return [
    frame({ type: 'message_start', message: start }),
    frame({ type: 'ping' }),
    ...body,
    frame({
      type: 'message_delta',
      delta: { stop_reason: stop, stop_sequence: stopText },
      usage: { output_tokens: usage.output_tokens },
    }),
    frame({ type: 'message_stop' }),
  ].join('');
}

function piecesOf(block: FakeBlock, delta: (value: object) => string): readonly [object, readonly string[]] {
  const inPieces = (text: string): readonly string[] => text.match(/.{1,3}/gsu) ?? [];
  switch (block.type) {
    case 'text':
      return [
        { type: 'text', text: '' },
        inPieces(block.text).map((text) => delta({ type: 'text_delta', text })),
      ];
    case 'thinking':
      return [
        { type: 'thinking', thinking: '', signature: '' },
        [
          ...inPieces(block.thinking).map((thinking) => delta({ type: 'thinking_delta', thinking })),
          delta({ type: 'signature_delta', signature: block.signature }),
        ],
      ];
    case 'tool_use': {
      const text = JSON.stringify(block.input);
      const pieces = text === '{}' ? [''] : inPieces(text);
      return [
        { ...block, input: {} },
        pieces.map((partial_json) => delta({ type: 'input_json_delta', partial_json })),
      ];
    }
    default:
      return block satisfies never;
  }
}
