/** Ollama's chat, and a generate that is a chat of one turn -> the inner request. */
import { AppError } from 'cortex-core/wire/errors';
import type { OllamaChat, OllamaGenerate, OllamaMessage } from 'cortex-core/wire/ollama';
import type { InnerPart, InnerRequest, InnerTurn } from '../inner/inner-request.ts';
import { toMaxTokens, toSampling, toStops } from './ollama-body.ts';

type Common = Pick<OllamaChat, 'stream' | 'format' | 'think' | 'options'>;

export function chatToInner(request: OllamaChat, model: string): InnerRequest {
  const messages = request.messages ?? [];
  const last = messages.at(-1);
  return {
    ...commonFields(request, model),
    turns: toTurns(messages),
    tools: (request.tools ?? []).map(({ function: { name, description, parameters } }) => ({
      name,
      description: description ?? null,
      parameters: parameters ?? { type: 'object', properties: {} },
      strict: null,
    })),
    continuesLastTurn: last?.role === 'assistant' && (last.tool_calls?.length ?? 0) === 0,
  };
}

export function generateToInner(request: OllamaGenerate, model: string): InnerRequest {
  const { system, prompt, images } = request;
  const turn: InnerPart[] = [
    { type: 'text', text: prompt ?? '' },
    ...(images ?? []).map((data, at) => toImage(data, `images.${at}`)),
  ];
  return {
    ...commonFields(request, model),
    turns: [
      ...(system ? [{ role: 'system', parts: [{ type: 'text', text: system }] } as const] : []),
      { role: 'user', parts: turn },
    ],
    tools: [],
    continuesLastTurn: false,
  };
}

function commonFields(
  { stream, format, think, options }: Common,
  model: string,
): Omit<InnerRequest, 'turns' | 'tools' | 'continuesLastTurn'> {
  return {
    model,
    stream: stream ?? true,
    toolChoice: null,
    parallelToolCalls: null,
    maxTokens: toMaxTokens(options),
    stops: toStops(options),
    reasoning: toReasoning(think),
    format: toFormat(format),
    sampling: toSampling(options),
  };
}

function toReasoning(think: Common['think']): InnerRequest['reasoning'] {
  if (think === undefined || think === null) return null;
  if (typeof think === 'boolean') return { enabled: think, effort: null, budget: null };
  return { enabled: true, effort: think, budget: null };
}

function toFormat(format: Common['format']): InnerRequest['format'] {
  if (format === undefined || format === null || format === '') return null;
  return { name: 'answer', schema: format === 'json' ? null : format, strict: null };
}

/**
 * Calls mostly come back without an id, and results name the tool or nothing: a result belongs to the call
 * of its id, else to the first open call of its tool, else to the first open one.
 */
function toTurns(messages: readonly OllamaMessage[]): InnerTurn[] {
  let open: { readonly id: string; readonly name: string }[] = [];
  return messages.map((message, at): InnerTurn => {
    const parts: InnerPart[] = [];
    const text = message.content ?? '';
    if (message.role === 'tool') {
      const call = takeCall(open, message);
      open = open.filter((each) => each !== call);
      const callId = call?.id ?? message.tool_call_id ?? `call_${at}`;
      parts.push({ type: 'result', callId, parts: [{ type: 'text', text }], isError: false });
      return { role: 'user', parts };
    }
    if (message.thinking) parts.push({ type: 'reasoning', text: message.thinking });
    if (text !== '' || message.role !== 'assistant') parts.push({ type: 'text', text });
    for (const [index, data] of (message.images ?? []).entries()) {
      parts.push(toImage(data, `messages.${at}.images.${index}`));
    }
    if (message.role !== 'assistant') return { role: message.role, parts };
    open = [];
    for (const [index, call] of (message.tool_calls ?? []).entries()) {
      const id = call.id || `call_${at}_${index}`;
      const { name, arguments: given } = call.function;
      open.push({ id, name });
      parts.push({
        type: 'call',
        id,
        name,
        arguments: typeof given === 'string' ? given : JSON.stringify(given ?? {}),
      });
    }
    return { role: 'assistant', parts };
  });
}

function takeCall<T extends { readonly id: string; readonly name: string }>(
  open: readonly T[],
  { tool_call_id: id, tool_name: toolName, name }: OllamaMessage,
): T | undefined {
  const wanted = toolName ?? name;
  const byId = open.find((each) => each.id === id);
  return byId ?? open.find((each) => each.name === wanted) ?? (id || wanted ? undefined : open[0]);
}

/** By the first bytes: Ollama's images carry no type. */
const signatures: readonly (readonly [string, string])[] = [
  ['/9j/', 'image/jpeg'],
  ['iVBORw0KGgo', 'image/png'],
  ['R0lGOD', 'image/gif'],
  ['UklGR', 'image/webp'],
];

function toImage(data: string, path: string): InnerPart {
  const type = signatures.find(([start]) => data.startsWith(start))?.[1];
  if (type !== undefined) return { type: 'image', url: `data:${type};base64,${data}`, path };
  const message = `${path}: must be the base64 of a JPEG, PNG, GIF or WebP image, without a data: prefix`;
  throw new AppError('invalid_request', message, { param: path });
}
