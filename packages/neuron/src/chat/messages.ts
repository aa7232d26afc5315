/** Messages as clients send them -> messages as templates expect them. */
import { AppError } from 'cortex-core/wire/errors';
import type { ChatMessage, ChatTool, ContentPart } from 'cortex-core/wire/openai';

export interface TemplateCall {
  readonly id?: string;
  readonly type: 'function';
  /** `arguments`: an object, or text where it is no JSON object or the template wants text. */
  readonly function: { readonly name: string; readonly arguments: unknown };
}

export type TemplatePart =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'thinking'; readonly thinking: string };

export interface TemplateMessage {
  readonly role: string;
  readonly content: string | readonly TemplatePart[];
  readonly name?: string;
  readonly reasoning_content?: string;
  readonly reasoning?: string;
  readonly thinking?: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: readonly TemplateCall[];
  /** JSON, for templates that read tools from the system message. */
  readonly tools?: string;
}

export interface TemplateTool {
  readonly type: 'function';
  readonly function: {
    readonly name: string;
    readonly description?: string | undefined;
    readonly parameters: Readonly<Record<string, unknown>>;
  };
}

/** A message of one text, before it is fitted to a template. */
export type PlainMessage = TemplateMessage & { readonly content: string };

/** A map and no object: "constructor" is no role. */
const roles: ReadonlyMap<string, string> = new Map([
  ['system', 'system'],
  ['developer', 'system'],
  ['user', 'user'],
  ['assistant', 'assistant'],
  ['tool', 'tool'],
  ['function', 'tool'],
]);

/** What a model cannot read, and what it can: for the refusal. */
export interface Reader {
  readonly modelId: string;
  readonly capabilities: readonly string[];
}

/**
 * Content parts become one text (joined without a separator, so that `[{text}]` and a string render the same
 * bytes and share a prefix), `developer` becomes `system`, arguments become objects. A tool message without a
 * name gets the one of its call, because some templates print it.
 */
export function toPlainMessages(messages: readonly ChatMessage[], reader: Reader): PlainMessage[] {
  const names = new Map<string, string>();
  const lastCall = new Map<string, string>();
  return messages.map((message, at) => {
    const role = roles.get(message.role);
    if (role === undefined) {
      throw new AppError(
        'invalid_request_body',
        `"messages.${at}.role" is "${message.role.slice(0, 40)}"; use system, user, assistant or tool`,
        { param: `messages.${at}.role` },
      );
    }
    const calls = callsOf(message, at);
    for (const { id, function: called } of calls) {
      if (id === undefined) continue;
      names.set(id, called.name);
      lastCall.set(called.name, id);
    }
    const callId = message.tool_call_id ?? (role === 'tool' ? lastCall.get(message.name ?? '') : undefined);
    const name = message.name ?? (role === 'tool' ? names.get(callId ?? '') : undefined);
    const reasoning = message.reasoning_content ?? message.reasoning;
    return {
      role,
      content: toText(message.content, at, reader),
      ...(name === undefined ? {} : { name }),
      ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
      ...(callId === undefined ? {} : { tool_call_id: callId }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    };
  });
}

/** Only functions with a schema-shaped body reach a template. */
export function toTemplateTools(tools: readonly ChatTool[] | undefined): readonly TemplateTool[] | undefined {
  if (tools === undefined || tools.length === 0) return undefined;
  return tools.map((tool, at) => {
    if (tool.type !== 'function' || tool.function === undefined) {
      const message = `"tools.${at}" is not a function tool; only those work here`;
      throw new AppError('unsupported_parameter', message, { param: `tools.${at}` });
    }
    // "strict" asks for a grammar and is no business of the model's
    const { strict: _, parameters, ...rest } = tool.function;
    return {
      type: 'function' as const,
      function: { ...rest, parameters: parameters ?? { type: 'object', properties: {} } },
    };
  });
}

/** `function_call` is the form of before tools, without ids: it gets one from its place. */
function callsOf(message: ChatMessage, at: number): readonly TemplateCall[] {
  const calls = (message.tool_calls ?? []).map((call) => ({
    ...(call.id === undefined ? {} : { id: call.id }),
    type: 'function' as const,
    function: { name: call.function.name, arguments: toArguments(call.function.arguments) },
  }));
  const old = message.function_call;
  if (old === undefined || calls.length > 0) return calls;
  const called = { name: old.name, arguments: toArguments(old.arguments) };
  return [{ id: `call_${at}`, type: 'function', function: called }];
}

function toArguments(given: string | Readonly<Record<string, unknown>> | null | undefined): unknown {
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
  reader: Reader,
): string {
  if (content === null || content === undefined) return '';
  if (typeof content === 'string') return content;
  return content.map((part, index) => partText(part, `messages.${at}.content.${index}`, reader)).join('');
}

function partText(part: ContentPart, param: string, reader: Reader): string {
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
    case 'file': {
      const { modelId, capabilities } = reader;
      throw new AppError(
        'vision_unsupported',
        `model "${modelId}" cannot read "${param}" ("${part.type}"); it does ${capabilities.join(', ')}`,
        {
          param,
          extras: { model_id: modelId, capabilities, suggestion: 'send text, or use a model with vision' },
        },
      );
    }
    default:
      throw new AppError('invalid_request_body', `"${param}.type" is "${part.type.slice(0, 40)}"; use text`, {
        param: `${param}.type`,
      });
  }
}
