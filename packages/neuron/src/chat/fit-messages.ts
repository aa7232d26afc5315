/**
 * A conversation fitted to what a template can take, so that nothing a client said is dropped: a system turn
 * it would refuse or skip becomes part of a user turn where it stands (never hoisted to the top, which would
 * change the prefix of every later turn), turns it wants to alternate are merged, calls it cannot show are
 * written as text. What the template takes as it is stays as it is.
 */
import { toJson } from './jinja/print.ts';
import type { PlainMessage, TemplateCall, TemplateMessage, TemplateTool } from './messages.ts';
import { type TemplateTraits, toThinkingParts } from './template-traits.ts';

const between = '\n\n';

export function fitMessages(
  given: readonly PlainMessage[],
  traits: TemplateTraits,
  tools: readonly TemplateTool[] = [],
): TemplateMessage[] {
  let messages: PlainMessage[] = orderResults(given);
  messages = traits.callArguments === null ? messages.map(callsAsText) : messages;
  messages = traits.toolResults ? messages : messages.map(resultAsUser);
  messages = placeSystems(messages, traits);
  messages = mergeTurns(messages, traits);
  messages = traits.parallelCalls ? messages : splitCalls(messages);
  const shape = toShape(messages, traits);
  const fitted = messages.map((message) => finish(message, traits, shape));
  return tools.length > 0 && traits.toolsIn === 'system_message' ? withToolsInSystem(fitted, tools) : fitted;
}

function withToolsInSystem(
  messages: readonly TemplateMessage[],
  offered: readonly TemplateTool[],
): TemplateMessage[] {
  const tools = toJson(offered.map((tool) => tool.function));
  const [first, ...rest] = messages;
  if (first?.role === 'system') return [{ ...first, tools }, ...rest];
  return [{ role: 'system', content: '', tools }, ...messages];
}

/** Results in the order of their calls: templates without ids tell them apart by it. */
function orderResults(given: readonly PlainMessage[]): PlainMessage[] {
  const messages = [...given];
  for (let at = 0; at < messages.length; at++) {
    const order = (messages[at]?.tool_calls ?? []).map((call) => call.id);
    if (order.length < 2) continue;
    let end = at + 1;
    while (messages[end]?.role === 'tool') end++;
    const results = messages.slice(at + 1, end);
    if (!results.every(({ tool_call_id: id }) => id !== undefined && order.includes(id))) continue;
    results.sort((a, b) => order.indexOf(a.tool_call_id) - order.indexOf(b.tool_call_id));
    messages.splice(at + 1, results.length, ...results);
  }
  return messages;
}

/** The form of Hermes, which models without one of their own know best. */
function callsAsText(message: PlainMessage): PlainMessage {
  const { tool_calls: calls, ...rest } = message;
  if (calls === undefined) return message;
  const texts = calls.map(({ function: { name, arguments: args } }) => {
    return `<tool_call>\n${JSON.stringify({ name, arguments: args })}\n</tool_call>`;
  });
  return { ...rest, content: [rest.content, ...texts].filter((text) => text !== '').join('\n') };
}

function resultAsUser(message: PlainMessage): PlainMessage {
  if (message.role !== 'tool') return message;
  return { role: 'user', content: `<tool_response>\n${message.content}\n</tool_response>` };
}

function placeSystems(given: readonly PlainMessage[], traits: TemplateTraits): PlainMessage[] {
  const firstOther = given.findIndex(({ role }) => role !== 'system');
  const lead = firstOther === -1 ? given.length : firstOther;
  let leading = given.slice(0, lead);
  if (leading.length > 1 && !traits.severalSystems) {
    leading = [{ role: 'system', content: joinTexts(leading) }];
  }
  const rest = placeLater(given.slice(lead), traits);
  if (leading.length === 0 || traits.firstSystem) return [...leading, ...rest];
  const text = joinTexts(leading);
  const [next] = rest;
  if (next?.role !== 'user') return [{ role: 'user', content: text }, ...rest];
  return [{ ...next, content: joinTexts([{ content: text }, next]) }, ...rest.slice(1)];
}

function placeLater(messages: readonly PlainMessage[], traits: TemplateTraits): PlainMessage[] {
  if (traits.laterSystem) return [...messages];
  const placed: PlainMessage[] = [];
  for (const message of messages) {
    const last = placed.at(-1);
    if (message.role !== 'system') placed.push(message);
    else if (last?.role === 'user')
      placed[placed.length - 1] = { ...last, content: joinTexts([last, message]) };
    else placed.push({ role: 'user', content: message.content });
  }
  return placed;
}

function joinTexts(messages: readonly { readonly content: string }[]): string {
  return messages
    .map(({ content }) => content)
    .filter((text) => text !== '')
    .join(between);
}

function mergeTurns(messages: readonly PlainMessage[], traits: TemplateTraits): PlainMessage[] {
  const merged: PlainMessage[] = [];
  for (const message of messages) {
    const last = merged.at(-1);
    const isRepeated = last !== undefined && last.role === message.role;
    const mayRepeat = message.role === 'user' ? traits.repeatedUser : traits.repeatedAssistant;
    if (!isRepeated || mayRepeat || (message.role !== 'user' && message.role !== 'assistant')) {
      merged.push(message);
      continue;
    }
    const calls = [...(last.tool_calls ?? []), ...(message.tool_calls ?? [])];
    const reasoning = joinReasoning(last.reasoning_content, message.reasoning_content);
    merged[merged.length - 1] = {
      ...last,
      content: joinTexts([last, message]),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
      ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    };
  }
  return merged;
}

function joinReasoning(a: string | undefined, b: string | undefined): string | undefined {
  return a === undefined || b === undefined ? (a ?? b) : a + between + b;
}

/** One call a turn, each followed by its result. */
function splitCalls(messages: readonly PlainMessage[]): PlainMessage[] {
  const split: PlainMessage[] = [];
  for (let at = 0; at < messages.length; at++) {
    const message = messages[at] as PlainMessage;
    const calls = message.tool_calls ?? [];
    if (calls.length < 2) {
      split.push(message);
      continue;
    }
    const results: PlainMessage[] = [];
    while (messages[at + 1]?.role === 'tool') results.push(messages[++at] as PlainMessage);
    for (const [index, call] of calls.entries()) {
      const { reasoning_content: _, ...bare } = message;
      split.push({ ...(index === 0 ? message : { ...bare, content: '' }), tool_calls: [call] });
      const found = results.findIndex(({ tool_call_id: id }) => id === undefined || id === call.id);
      if (found !== -1) split.push(...results.splice(found, 1));
    }
    split.push(...results);
  }
  return split;
}

type Shape = (id: string) => string;

function finish(message: PlainMessage, traits: TemplateTraits, shape: Shape): TemplateMessage {
  const { reasoning_content: reasoning, tool_calls: calls, tool_call_id: id, ...rest } = message;
  const finished: TemplateMessage = {
    ...rest,
    ...(id === undefined ? {} : { tool_call_id: shape(id) }),
    ...(calls === undefined ? {} : { tool_calls: calls.map((call) => finishCall(call, traits, shape)) }),
  };
  const thought =
    reasoning === undefined || reasoning === '' ? finished : withReasoning(finished, reasoning, traits);
  if (traits.content === 'string' || typeof thought.content !== 'string') return thought;
  return { ...thought, content: [{ type: 'text', text: thought.content }] };
}

function withReasoning(message: TemplateMessage, reasoning: string, traits: TemplateTraits): TemplateMessage {
  const field = traits.reasoningField;
  // where the probe saw none, the usual name: the template may show it with thinking switched on
  if (field === null) return { ...message, reasoning_content: reasoning };
  if (field === 'content_part') {
    return { ...message, content: toThinkingParts(reasoning, String(message.content)) };
  }
  const isSplit = message.tool_calls === undefined || traits.reasoningBesideContent || message.content === '';
  if (isSplit) return { ...message, [field]: reasoning };
  return { ...message, content: '', [field]: `${reasoning}${between}${message.content}` };
}

function finishCall(call: TemplateCall, traits: TemplateTraits, shape: Shape): TemplateCall {
  const { name, arguments: args } = call.function;
  const isText = traits.callArguments === 'string' && typeof args !== 'string';
  return {
    ...call,
    ...(call.id === undefined ? {} : { id: shape(call.id) }),
    function: { name, arguments: isText ? JSON.stringify(args) : args },
  };
}

/** Ids as the template wants them, the same in a call and its result. */
function toShape(messages: readonly PlainMessage[], { callIds }: TemplateTraits): Shape {
  if (callIds === 'nine') return toNine;
  if (callIds === 'any') return (id) => id;
  const named = new Map<string, string>();
  for (const { id, function: call } of messages.flatMap((message) => message.tool_calls ?? [])) {
    if (id === undefined || named.has(id)) continue;
    const isNamed = /^functions\.[^:]+:\d+$/.test(id);
    named.set(id, isNamed ? id : `functions.${call.name}:${named.size}`);
  }
  return (id) => named.get(id) ?? id;
}

/** Nine letters and digits, the same for the same id (Mistral's templates refuse any other). */
function toNine(id: string): string {
  if (/^[a-zA-Z0-9]{9}$/.test(id)) return id;
  let hash = 0xcbf29ce484222325n; // FNV-1a, 64 bits
  for (const char of id)
    hash = ((hash ^ BigInt(char.codePointAt(0) ?? 0)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash.toString(36).padStart(9, '0').slice(-9);
}
