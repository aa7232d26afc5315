/**
 * Anthropic messages -> OpenAI chat, text only. System turns in mid-conversation join the turn before them
 * instead of moving to the top: chat templates refuse them elsewhere, and moving them would change the
 * prompt's head with each turn and lose the prefix cache. Consecutive turns of one role merge, because
 * templates demand alternation.
 */
import { type AnthropicBlock, type MessagesRequest, messagesRequestSchema } from 'cortex-core/wire/anthropic';
import { AppError } from 'cortex-core/wire/errors';
import { modelOf, parseObject } from './request-body.ts';

export interface ChatTurn {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** Throws `invalid_request` that names the field, in Anthropic's words where clients read them. */
export function parseMessagesRequest(body: Uint8Array): MessagesRequest {
  const json = parseObject(body);
  modelOf(json);
  const parsed = messagesRequestSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = issue?.path.join('.') ?? '';
    const missing = issue?.code === 'invalid_type' && issue.message.includes('undefined');
    const what = missing ? 'Field required' : (issue?.message ?? 'not valid');
    throw new AppError('invalid_request', `${path}: ${what}`, { param: path });
  }
  if ((parsed.data.tools?.length ?? 0) > 0) {
    throw unsupported('tools', 'tools are not supported on /v1/messages yet; send the request without tools');
  }
  return parsed.data;
}

/** The body of POST /v1/chat/completions. */
export function toChatBody(request: MessagesRequest, wireId: string): Readonly<Record<string, unknown>> {
  const body: Record<string, unknown> = {
    model: wireId,
    messages: toChatTurns(request),
    max_tokens: request.max_tokens,
  };
  if (request.stream === true) {
    body.stream = true;
    body.stream_options = { include_usage: true };
  }
  if (typeof request.temperature === 'number') body.temperature = request.temperature;
  if (typeof request.top_p === 'number') body.top_p = request.top_p;
  if (typeof request.top_k === 'number') body.top_k = request.top_k;
  if (request.stop_sequences && request.stop_sequences.length > 0) body.stop = request.stop_sequences;
  return body;
}

export function toChatTurns(request: MessagesRequest): ChatTurn[] {
  const turns: { role: ChatTurn['role']; content: string }[] = [];
  const add = (role: ChatTurn['role'], content: string): void => {
    const last = turns.at(-1);
    if (last?.role === role) last.content += `\n\n${content}`;
    else turns.push({ role, content });
  };
  const system = request.system;
  if (system !== undefined && system !== null) {
    const text = typeof system === 'string' ? system : systemText(system);
    if (text !== '') add('system', text);
  }
  for (const [i, message] of request.messages.entries()) {
    const content =
      typeof message.content === 'string'
        ? message.content
        : blocksText(message.content, `messages.${i}.content`, '');
    if (message.role !== 'system') add(message.role, content);
    else add(turns.at(-1)?.role === 'system' || turns.length === 0 ? 'system' : 'user', content);
  }
  return turns;
}

/** Claude Code's billing header changes with every request and would spoil the prefix cache. */
function systemText(blocks: readonly AnthropicBlock[]): string {
  const kept = blocks.filter(
    (block) => typeof block.text !== 'string' || !block.text.startsWith('x-anthropic-billing-header:'),
  );
  return blocksText(kept, 'system', '\n\n');
}

function blocksText(blocks: readonly AnthropicBlock[], path: string, glue: string): string {
  const texts: string[] = [];
  for (const [i, block] of blocks.entries()) {
    if (block.type === 'thinking' || block.type === 'redacted_thinking') continue;
    if (block.type !== 'text') {
      const type = block.type.slice(0, 40);
      const message = `${path}.${i}: blocks of type "${type}" are not supported yet; send text blocks`;
      throw unsupported(`${path}.${i}.type`, message);
    }
    if (typeof block.text !== 'string') {
      const at = `${path}.${i}.text`;
      throw new AppError('invalid_request', `${at}: Field required`, { param: at });
    }
    texts.push(block.text);
  }
  return texts.join(glue);
}

function unsupported(param: string, message: string): AppError {
  return new AppError('unsupported_parameter', message, { param });
}
