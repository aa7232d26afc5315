/** `cortex run MODEL "prompt"`: one question, the answer on stdout as it comes. */
import { toAnswerPart } from './answer-events.ts';
import { CliError } from './cli-error.ts';
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import type { Terminal } from './terminal.ts';
import { toPrintable } from './text.ts';

export interface RunOptions extends GatewayAddress {
  readonly system?: string;
  readonly json?: boolean;
  readonly maxTokens?: number;
  readonly temperature?: number;
}

export async function runPrompt(
  terminal: Terminal,
  model: string,
  promptArgument: string | undefined,
  options: RunOptions,
  signal: AbortSignal,
): Promise<void> {
  const client = new GatewayClient(options);
  const prompt = promptArgument ?? (await readPrompt(terminal, signal));
  if (prompt.trim() === '') {
    throw new CliError('the prompt is empty; write it after the model, or pipe it in', 2);
  }
  const body = {
    model,
    messages: [
      ...(options.system === undefined ? [] : [{ role: 'system', content: options.system }]),
      { role: 'user', content: prompt },
    ],
    ...(options.maxTokens === undefined ? {} : { max_tokens: options.maxTokens }),
    ...(options.temperature === undefined ? {} : { temperature: options.temperature }),
  };
  if (options.json === true) {
    const answer = await client.post('/v1/chat/completions', { ...body, stream: false }, signal);
    terminal.stdout.write(`${JSON.stringify(answer)}\n`);
    return;
  }
  await printStream(terminal, client.stream('/v1/chat/completions', { ...body, stream: true }, signal));
}

async function printStream(terminal: Terminal, events: AsyncIterable<unknown>): Promise<void> {
  // What a model writes is shown on a terminal, never obeyed by it; a pipe gets it unchanged.
  const show = (text: string): string => (terminal.stdout.isTTY === true ? toPrintable(text) : text);
  let finishReason: string | null = null;
  let last = '\n';
  let reasoned = false;
  try {
    for await (const event of events) {
      const part = toAnswerPart(event);
      if (part.reasoning !== '' && terminal.stderr.isTTY === true) {
        terminal.stderr.write(terminal.errorStyle.dim(toPrintable(part.reasoning)));
        reasoned = true;
      }
      if (part.text !== '') {
        if (reasoned) terminal.stderr.write('\n');
        reasoned = false;
        terminal.stdout.write(show(part.text));
        last = part.text;
      }
      finishReason = part.finishReason ?? finishReason;
    }
  } finally {
    if (!last.endsWith('\n')) terminal.stdout.write('\n');
  }
  if (finishReason === null) throw new CliError('the answer was cut off before its end; ask again');
  if (finishReason === 'length' && terminal.stderr.isTTY === true) {
    terminal.stderr.write(`${terminal.errorStyle.dim('(stopped at the token limit; see --max-tokens)')}\n`);
  }
}

async function readPrompt(terminal: Terminal, signal: AbortSignal): Promise<string> {
  if (terminal.stdin.isTTY === true) {
    terminal.stderr.write(terminal.errorStyle.dim('Write the prompt; Ctrl-D on an empty line sends it.\n'));
  }
  const chunks: Buffer[] = [];
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  const read = async (): Promise<string> => {
    for await (const chunk of terminal.stdin) chunks.push(Buffer.from(chunk as Uint8Array));
    return Buffer.concat(chunks).toString('utf8');
  };
  return Promise.race([read(), aborted]);
}
