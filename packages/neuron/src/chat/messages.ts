/** Messages as clients send them -> messages as templates expect them. */
import { AppError } from 'cortex-core/wire/errors';
import type { ChatMessage, ChatTool, ContentPart } from 'cortex-core/wire/openai';

export interface TemplateMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
  readonly reasoning_content?: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: readonly {
    readonly id?: string;
    readonly type: 'function';
    readonly function: { readonly name: string; readonly arguments: unknown };
  }[];
}

/** A map and no object: "constructor" is no role. */
const roles: ReadonlyMap<string, string> = new Map([
  ['system', 'system'],
  ['developer', 'system'],
  ['user', 'user'],
  ['assistant', 'assistant'],
  ['tool', 'tool'],
  ['function', 'tool'],
]);

/**
 * Content parts become one text (joined without a separator, so that `[{text}]` and a string render the same
 * bytes and share a prefix), `developer` becomes `system`, and tool-call arguments become objects because the
 * templates of Qwen and others iterate over them.
 */
export function toTemplateMessages(messages: readonly ChatMessage[], modelId: string): TemplateMessage[] {
  return messages.map((message, at) => {
    const role = roles.get(message.role);
    if (role === undefined) {
      throw new AppError(
        'invalid_request_body',
        `"messages.${at}.role" is "${message.role.slice(0, 40)}"; use system, user, assistant or tool`,
        { param: `messages.${at}.role` },
      );
    }
    const calls = message.tool_calls;
    return {
      role,
      content: toText(message.content, at, modelId),
      ...(message.name === undefined ? {} : { name: message.name }),
      ...(message.reasoning_content === undefined ? {} : { reasoning_content: message.reasoning_content }),
      ...(message.tool_call_id === undefined ? {} : { tool_call_id: message.tool_call_id }),
      ...(calls === undefined || calls.length === 0 ? {} : { tool_calls: calls.map(toTemplateCall) }),
    };
  });
}

/** Only functions with a schema-shaped body reach a template. */
export function toTemplateTools(tools: readonly ChatTool[] | undefined): readonly unknown[] | undefined {
  if (tools === undefined || tools.length === 0) return undefined;
  return tools.map((tool, at) => {
    if (tool.type !== 'function' || tool.function === undefined) {
      throw new AppError(
        'unsupported_parameter',
        `"tools.${at}" is not a function tool; only those work here`,
        {
          param: `tools.${at}`,
        },
      );
    }
    return {
      type: 'function',
      function: {
        ...tool.function,
        parameters: tool.function.parameters ?? { type: 'object', properties: {} },
      },
    };
  });
}

function toTemplateCall(call: NonNullable<ChatMessage['tool_calls']>[number]) {
  return {
    ...(call.id === undefined ? {} : { id: call.id }),
    type: 'function' as const,
    function: { name: call.function.name, arguments: toArguments(call.function.arguments) },
  };
}

function toArguments(given: string | Record<string, unknown> | null | undefined): unknown {
  if (given === null || given === undefined || given === '') return {};
  if (typeof given !== 'string') return given;
  try {
    const parsed: unknown = JSON.parse(given);
    return typeof parsed === 'object' && parsed !== null ? parsed : given;
  } catch {
    return given; // a truncated call in the history: the template gets its text
  }
}

function toText(
  content: string | readonly ContentPart[] | null | undefined,
  at: number,
  modelId: string,
): string {
  if (content === null || content === undefined) return '';
  if (typeof content === 'string') return content;
  return content.map((part, index) => partText(part, `messages.${at}.content.${index}`, modelId)).join('');
}

function partText(part: ContentPart, param: string, modelId: string): string {
  switch (part.type) {
    case 'text':
    case 'input_text':
    case 'output_text':
    case 'refusal': {
      const text = part.type === 'refusal' ? part.refusal : part.text;
      return typeof text === 'string' ? text : '';
    }
    case 'image_url':
    case 'input_image':
    case 'input_audio':
    case 'audio_url':
    case 'video_url':
    case 'file':
      throw new AppError(
        'vision_unsupported',
        `model "${modelId}" reads text only; "${param}" is of type "${part.type}"`,
        { param, extras: { model_id: modelId, suggestion: 'send text, or use a model with vision' } },
      );
    default:
      throw new AppError('invalid_request_body', `"${param}.type" is "${part.type.slice(0, 40)}"; use text`, {
        param: `${param}.type`,
      });
  }
}
