/** The body of POST /v1/chat/completions that a neuron gets for a request of another dialect. */
import type { UpstreamTarget } from '../dialect.ts';
import { type JsonObject, unsaid } from '../request-body.ts';
import { toChatMessages } from './chat-messages.ts';
import type { InnerReasoning, InnerRequest, InnerTool, InnerToolChoice } from './inner-request.ts';

/** Throws `vision_unsupported` for what the target is known not to read. */
export function toChatBody(inner: InnerRequest, target: UpstreamTarget): JsonObject {
  const { wireId, defaults, overrides, capabilities = null } = target;
  const messages = toChatMessages(inner.turns, { model: inner.model, capabilities });
  const body: JsonObject = {
    model: wireId,
    messages,
    ...(inner.maxTokens === null ? {} : { max_tokens: inner.maxTokens }),
    ...(inner.stream
      ? { stream: true, stream_options: { include_usage: true, include_prompt_usage: true } }
      : {}),
    ...inner.sampling,
    ...(inner.stops.length === 0 ? {} : { stop: inner.stops }),
    ...toolFields(inner),
    ...reasoningFields(inner.reasoning, capabilities),
    ...(inner.format === null ? {} : { response_format: toResponseFormat(inner.format) }),
    // merged with a turn that called, it is followed by results
    ...(inner.continuesLastTurn && messages.at(-1)?.role === 'assistant'
      ? { continue_final_message: true }
      : {}),
  };
  return { ...body, ...unsaid(body, defaults), ...overrides };
}

function toolFields({ tools, toolChoice, parallelToolCalls }: InnerRequest): JsonObject {
  if (tools.length === 0) return {};
  return {
    tools: tools.map(toTool),
    ...(toolChoice === null ? {} : { tool_choice: toChatToolChoice(toolChoice) }),
    ...(parallelToolCalls === null ? {} : { parallel_tool_calls: parallelToolCalls }),
  };
}

function toTool({ name, description, parameters, strict }: InnerTool): JsonObject {
  return {
    type: 'function',
    function: {
      name,
      ...(description === null ? {} : { description }),
      parameters,
      ...(strict === null ? {} : { strict }),
    },
  };
}

function toChatToolChoice(choice: InnerToolChoice): unknown {
  return typeof choice === 'string' ? choice : { type: 'function', function: { name: choice.name } };
}

/** A neuron refuses an effort for a model that does not reason; to most clients it is a habit, not a wish. */
function reasoningFields(
  reasoning: InnerReasoning | null,
  capabilities: readonly string[] | null,
): JsonObject {
  if (reasoning === null) return {};
  const { enabled, effort, budget } = reasoning;
  const takesEffort = effort !== null && capabilities?.includes('reasoning') === true;
  return {
    ...(enabled === null ? {} : { enable_thinking: enabled }),
    ...(takesEffort ? { reasoning_effort: effort } : {}),
    ...(budget === null ? {} : { thinking_budget_tokens: budget }),
  };
}

function toResponseFormat({ name, schema, strict }: NonNullable<InnerRequest['format']>): JsonObject {
  if (schema === null) return { type: 'json_object' };
  const json_schema = { name, schema, ...(strict === null ? {} : { strict }) };
  return { type: 'json_schema', json_schema };
}
