/**
 * The body of a chat request -> an inner request. What a provider of another kind is asked is written from
 * it; it has passed a dialect, or came from a client as it is, so that every field may be of another type.
 *
 * Errors: `invalid_request` with the field's path, for what the meaning of the request depends on.
 */
import { AppError } from 'cortex-core/wire/errors';
import type {
  InnerFormat,
  InnerPart,
  InnerReasoning,
  InnerRequest,
  InnerTool,
  InnerToolChoice,
  InnerTurn,
} from '../inner/inner-request.ts';
import { type JsonObject, positiveIntOrNull } from '../request-body.ts';
import { objectOf } from '../wire-grammar/wire-grammar.ts';

export function readChatRequest(body: JsonObject): InnerRequest {
  if (!Array.isArray(body.messages)) throw fault('messages', 'must be an array of messages');
  const { temperature, top_p, top_k, user } = body;
  return {
    model: String(body.model),
    stream: body.stream === true,
    turns: body.messages.map((message, at) => toTurn(message, `messages.${at}`)),
    tools: toTools(body),
    toolChoice: toToolChoice(body.tool_choice ?? body.function_call),
    parallelToolCalls: typeof body.parallel_tool_calls === 'boolean' ? body.parallel_tool_calls : null,
    maxTokens: positiveIntOrNull(body.max_completion_tokens) ?? positiveIntOrNull(body.max_tokens),
    stops: toStops(body.stop),
    reasoning: toReasoning(body),
    format: toFormat(body.response_format),
    continuesLastTurn: body.continue_final_message === true,
    sampling: { temperature, top_p, top_k, user },
  };
}

function toTurn(value: unknown, path: string): InnerTurn {
  const message = objectOf(value);
  if (message === null) throw fault(path, 'must be an object');
  const parts = toParts(message.content, `${path}.content`);
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'system', parts };
    case 'user':
      return { role: 'user', parts };
    case 'assistant':
      return {
        role: 'assistant',
        parts: [...toReasoningParts(message), ...parts, ...toCalls(message, path)],
      };
    case 'tool':
    case 'function': {
      const callId = textOf(message.tool_call_id) ?? textOf(message.name) ?? '';
      return { role: 'user', parts: [{ type: 'result', callId, parts, isError: false }] };
    }
    default:
      throw fault(`${path}.role`, 'must be one of system, developer, user, assistant, tool');
  }
}

function toParts(content: unknown, path: string): InnerPart[] {
  if (typeof content === 'string') return content === '' ? [] : [{ type: 'text', text: content }];
  if (content === null || content === undefined) return [];
  if (!Array.isArray(content)) throw fault(path, 'must be a string or an array of parts');
  return content.map((part, at) => toPart(part, `${path}.${at}`));
}

function toPart(value: unknown, path: string): InnerPart {
  if (typeof value === 'string') return { type: 'text', text: value };
  const part = objectOf(value) ?? {};
  switch (part.type) {
    case 'text':
    case 'refusal': {
      const text = textOf(part.text) ?? textOf(part.refusal);
      if (text === null) throw fault(`${path}.text`, 'must be a string');
      return { type: 'text', text };
    }
    case 'image_url': {
      const url = textOf(part.image_url) ?? textOf(objectOf(part.image_url)?.url);
      if (url === null) throw fault(`${path}.image_url.url`, 'must be a string');
      return { type: 'image', url, path };
    }
    case 'input_audio': {
      const { data, format } = objectOf(part.input_audio) ?? {};
      return { type: 'audio', data: textOf(data) ?? '', format: textOf(format) ?? '', path };
    }
    case 'file': {
      const { file_data: data, filename } = objectOf(part.file) ?? {};
      const match = /^data:([^;,]+);base64,(.*)$/s.exec(textOf(data) ?? '');
      if (match === null) throw fault(`${path}.file.file_data`, 'must be a data: address in base64');
      const [, mediaType = '', bytes = ''] = match;
      return { type: 'document', title: textOf(filename), mediaType, data: bytes, path };
    }
    default:
      throw fault(`${path}.type`, 'must be one of text, image_url, input_audio, file');
  }
}

function toReasoningParts(message: JsonObject): InnerPart[] {
  const text = textOf(message.reasoning_content) ?? textOf(message.reasoning);
  return text === null || text === '' ? [] : [{ type: 'reasoning', text }];
}

function toCalls(message: JsonObject, path: string): InnerPart[] {
  const legacy = objectOf(message.function_call);
  const old: InnerPart[] =
    legacy === null ? [] : [toCall(textOf(legacy.name) ?? '', legacy, `${path}.function_call`)];
  if (!Array.isArray(message.tool_calls)) return old;
  return message.tool_calls.map((value: unknown, at) => {
    const call = objectOf(value) ?? {};
    const where = `${path}.tool_calls.${at}`;
    const id = textOf(call.id);
    if (id === null) throw fault(`${where}.id`, 'must be a string');
    return toCall(id, objectOf(call.function) ?? {}, `${where}.function`);
  });
}

function toCall(id: string, call: JsonObject, path: string): InnerPart {
  const name = textOf(call.name);
  if (name === null) throw fault(`${path}.name`, 'must be a string');
  return { type: 'call', id, name, arguments: textOf(call.arguments) ?? '' };
}

function toTools(body: JsonObject): InnerTool[] {
  const given: readonly unknown[] = Array.isArray(body.tools) ? body.tools : [];
  const legacy: readonly unknown[] = Array.isArray(body.functions) ? body.functions : [];
  const functions = [
    ...given.map((tool, at) => [objectOf(objectOf(tool)?.function), `tools.${at}.function`] as const),
    ...legacy.map((tool, at) => [objectOf(tool), `functions.${at}`] as const),
  ];
  return functions.map(([tool, path]) => {
    const name = textOf(tool?.name);
    if (name === null) throw fault(`${path}.name`, 'must be a string');
    return {
      name,
      description: textOf(tool?.description),
      parameters: objectOf(tool?.parameters) ?? { type: 'object', properties: {} },
      strict: typeof tool?.strict === 'boolean' ? tool.strict : null,
    };
  });
}

function toToolChoice(choice: unknown): InnerToolChoice | null {
  if (choice === 'auto' || choice === 'none' || choice === 'required') return choice;
  const object = objectOf(choice);
  const name = textOf(objectOf(object?.function)?.name) ?? textOf(object?.name);
  return name === null ? null : { name };
}

function toStops(stop: unknown): string[] {
  const all: readonly unknown[] = Array.isArray(stop) ? stop : [stop];
  return all.filter((each) => typeof each === 'string' && each !== '') as string[];
}

function toReasoning(body: JsonObject): InnerReasoning | null {
  const { enable_thinking: inTemplate } = objectOf(body.chat_template_kwargs) ?? {};
  const said = body.enable_thinking ?? inTemplate;
  const enabled = typeof said === 'boolean' ? said : null;
  const effort = textOf(body.reasoning_effort) ?? textOf(objectOf(body.reasoning)?.effort);
  const budget = positiveIntOrNull(body.thinking_budget_tokens);
  return enabled === null && effort === null && budget === null ? null : { enabled, effort, budget };
}

function toFormat(value: unknown): InnerFormat | null {
  const format = objectOf(value);
  if (format?.type === 'json_object') return { name: 'answer', schema: null, strict: null };
  if (format?.type !== 'json_schema') return null;
  const { name, schema, strict } = objectOf(format.json_schema) ?? {};
  return {
    name: textOf(name) ?? 'answer',
    schema: objectOf(schema),
    strict: typeof strict === 'boolean' ? strict : null,
  };
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function fault(param: string, what: string): AppError {
  return new AppError('invalid_request', `${param}: ${what}`, { param });
}
