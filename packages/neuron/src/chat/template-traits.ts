/**
 * What a chat template can take, found by showing it small conversations and looking at what comes out.
 *
 * Problem: templates differ in what they read (arguments as an object or as text, system turns in the
 *          middle, two user turns in a row) and many drop what they do not know without a word.
 * Design:  each question is one rendering with a word that occurs nowhere else; what does not show up was
 *          not read. Asked once per template, about thirty renderings of a few lines, some milliseconds.
 */
import type { TemplateMessage } from './messages.ts';

/** Renders or throws, as the template does. */
export type Probe = (
  messages: readonly TemplateMessage[],
  variables?: Readonly<Record<string, unknown>>,
) => string;

export interface TemplateTraits {
  /** How it wants the arguments of calls in the history; null = it does not show calls. */
  readonly callArguments: 'object' | 'string' | null;
  /** Several calls in one assistant turn. */
  readonly parallelCalls: boolean;
  readonly toolResults: boolean;
  /** Where it reads tools from; null = it shows none. */
  readonly toolsIn: ToolsPlace | null;
  /** Fails on none where there are no tools, and takes an empty list. */
  readonly needsToolList: boolean;
  /** Fails on a tool without a description. */
  readonly needsDescription: boolean;
  /** `nine` = only nine letters and digits (Mistral); `named` = the id is all that names a call (Kimi). */
  readonly callIds: 'any' | 'nine' | 'named';
  readonly content: 'string' | 'parts';
  readonly firstSystem: boolean;
  readonly severalSystems: boolean;
  readonly laterSystem: boolean;
  readonly repeatedUser: boolean;
  readonly repeatedAssistant: boolean;
  /** Where an assistant message holds its reasoning; null = none was shown. */
  readonly reasoningField: ReasoningField | null;
  /** Whether a turn with a call may have both reasoning and content. */
  readonly reasoningBesideContent: boolean;
  /** Variables that switch reasoning on and off. */
  readonly thinkingSwitches: readonly ThinkingSwitch[];
  readonly reasoningEffort: boolean;
  readonly thinkingBudget: boolean;
}

/** A variable, or (Phi-4) the field `tools` of the first system message, as JSON text. */
const toolsPlaces = ['tools', 'xml_tools', 'system_message'] as const;
export type ToolsPlace = (typeof toolsPlaces)[number];
/** A field of the message, or (Ministral) a part of the content of type `thinking`. */
const reasoningFields = ['reasoning_content', 'reasoning', 'thinking', 'content_part'] as const;
export type ReasoningField = (typeof reasoningFields)[number];
const thinkingSwitches = ['enable_thinking', 'thinking'] as const;
export type ThinkingSwitch = (typeof thinkingSwitches)[number];

const mark = 'xqcanary';
const user: TemplateMessage = { role: 'user', content: 'Hi' };
const tool = {
  type: 'function',
  function: {
    name: `${mark}_tool`,
    description: 'x',
    parameters: {
      type: 'object',
      properties: { key: { type: 'string', description: 'x' } },
      required: ['key'],
    },
  },
};

const bare = { type: 'function', function: { name: `${mark}_tool`, parameters: tool.function.parameters } };

export function probeTemplate(render: Probe): TemplateTraits {
  const shown = toShown(render);
  const content = shown([{ role: 'user', content: mark }]) || !shown([partsOf(mark)]) ? 'string' : 'parts';
  const wrap = (message: TemplateMessage): TemplateMessage =>
    content === 'parts' && typeof message.content === 'string'
      ? { ...message, content: [{ type: 'text', text: message.content }] }
      : message;
  const probe: Probe = (messages, variables) => render(messages.map(wrap), variables);
  return { content, ...probeTurns(probe), ...probeCalls(probe), ...probeReasoning(probe) };
}

/** Whether the words come through; a refusal counts as no. `tools`: offered with it. */
type Shown = (
  messages: readonly TemplateMessage[],
  words?: readonly string[],
  tools?: readonly unknown[],
) => boolean;

function toShown(render: Probe): Shown {
  return (messages, words = [mark], tools = []) => {
    try {
      const text = render(messages, tools.length > 0 ? { tools } : {});
      return words.every((word) => text.includes(word));
    } catch {
      return false;
    }
  };
}

function partsOf(text: string): TemplateMessage {
  return { role: 'user', content: [{ type: 'text', text }] };
}

function probeTurns(render: Probe) {
  const shown = toShown(render);
  const said: TemplateMessage = { role: 'assistant', content: 'Yo' };
  const system = (text: string): TemplateMessage => ({ role: 'system', content: text });
  /** Some templates print only the last system turn, and that one first: the others are lost. */
  const staysInPlace = (messages: readonly TemplateMessage[]): boolean => {
    try {
      const text = render(messages);
      const at = ['xqfirst', 'Yo', mark].map((word) => text.indexOf(word));
      return at.every((each, index) => each > (at[index - 1] ?? -1));
    } catch {
      return false;
    }
  };
  const isShownWithList = (): boolean => {
    try {
      return render([{ role: 'user', content: mark }], { tools: [] }).includes(mark);
    } catch {
      return false;
    }
  };
  const two = [`${mark}a`, `${mark}b`] as const;
  const twice = (role: string) => two.map((content) => ({ role, content }));
  return {
    firstSystem: shown([system(mark), user]),
    severalSystems: shown([system(two[0]), system(two[1]), user], two),
    needsToolList: !shown([{ role: 'user', content: mark }]) && isShownWithList(),
    laterSystem: staysInPlace([system('xqfirst'), user, said, system(mark), user]),
    repeatedUser: shown(twice('user'), two),
    repeatedAssistant: shown([user, ...twice('assistant'), user], two),
  };
}

function callTurn(args: unknown, ids: readonly string[], content = ''): TemplateMessage {
  return {
    role: 'assistant',
    content,
    tool_calls: ids.map((id, at) => ({
      id,
      type: 'function' as const,
      function: { name: `${mark}_tool`, arguments: at === 0 ? args : second(args) },
    })),
  };
}

function second(args: unknown): unknown {
  return typeof args === 'string' ? args.replace('xqvalue', 'xqsecond') : { xqkey: 'xqsecond' };
}

const nine = ['xqcanary1', 'xqcanary2'] as const;
const argument = { xqkey: 'xqvalue' };
const argumentText = '{"xqkey": "xqvalue"}';

function probeCalls(render: Probe) {
  const shown = toShown(render);
  const result = (id: string, text = 'done'): TemplateMessage => {
    return { role: 'tool', name: 'x', tool_call_id: id, content: text };
  };
  const callArguments = callArgumentsOf(render, result(nine[0]));
  const isOffered = (place: ToolsPlace, each: unknown): boolean => {
    const system: TemplateMessage = { role: 'system', content: 'x', tools: JSON.stringify([each]) };
    const messages = place === 'system_message' ? [system, user] : [user];
    try {
      return render(messages, { [place]: [each] }).includes(`${mark}_tool`);
    } catch {
      return false;
    }
  };
  const toolsIn = toolsPlaces.find((place) => isOffered(place, tool) || isOffered(place, bare)) ?? null;
  const args = callArguments === 'string' ? argumentText : argument;
  const both = [user, callTurn(args, nine), result(nine[0]), result(nine[1])];
  const callIdsOf = (): TemplateTraits['callIds'] => {
    const long = 'call_0123456789abcdef';
    const turns = [user, callTurn(args, [long]), result(long)];
    if (callArguments === null || shown(turns, [`${mark}_tool`])) return 'any';
    if (shown(turns, [long])) return 'named';
    return shown(turns, [], [tool]) ? 'any' : 'nine';
  };
  const textCall = [user, { role: 'assistant', content: 'Yo' }, result(nine[0], `${mark}result`)];
  const plainCall = [user, callTurn(args, [nine[0]]), result(nine[0], `${mark}result`)];
  return {
    callArguments,
    parallelCalls: callArguments !== null && shown(both, ['xqvalue', 'xqsecond'], [tool]),
    toolResults: shown(callArguments === null ? textCall : plainCall, [`${mark}result`], [tool]),
    toolsIn,
    needsDescription: toolsIn !== null && !isOffered(toolsIn, bare),
    callIds: callIdsOf(),
  } as const;
}

/** Python's way to print a mapping, or JSON inside a JSON string, is not what the model learned. */
function callArgumentsOf(render: Probe, result: TemplateMessage): 'object' | 'string' | null {
  for (const [kind, args] of [
    ['object', argument],
    ['string', argumentText],
  ] as const) {
    try {
      const text = render([user, callTurn(args, [nine[0]]), result], { tools: [tool] });
      const isRight = text.includes('xqvalue') && !text.includes("{'xqkey'") && !text.includes('\\"xqkey\\"');
      if (isRight && text.includes('xqkey')) return kind;
    } catch {
      // the other kind, then
    }
  }
  return null;
}

/** Reasoning and text as parts of one content. */
export function toThinkingParts(reasoning: string, text: string): TemplateMessage['content'] {
  const thought = { type: 'thinking' as const, thinking: reasoning };
  return text === '' ? [thought] : [thought, { type: 'text', text }];
}

function probeReasoning(render: Probe) {
  const shown = toShown(render);
  const { callArguments } = probeCalls(render);
  const call = callTurn(callArguments === 'string' ? argumentText : argument, [nine[0]]);
  const result: TemplateMessage = {
    role: 'tool',
    name: `${mark}_tool`,
    tool_call_id: nine[0],
    content: 'done',
  };
  const last: TemplateMessage = { role: 'assistant', content: 'Yo' };
  const withWhy = (message: TemplateMessage, field: ReasoningField): TemplateMessage => {
    if (field !== 'content_part') return { ...message, [field]: `${mark}why` };
    return { ...message, content: toThinkingParts(`${mark}why`, String(message.content)) };
  };
  const isShown = (messages: readonly TemplateMessage[], tools: readonly unknown[]): boolean => {
    try {
      const text = render(messages, tools.length > 0 ? { tools } : {});
      // a template that knows no parts prints the list itself
      return text.includes(`${mark}why`) && !/['"]thinking['"]/.test(text);
    } catch {
      return false;
    }
  };
  const reasoningField = reasoningFields.find((field) => {
    const within = callArguments !== null && isShown([user, withWhy(call, field), result], [tool]);
    return within || isShown([user, withWhy(last, field)], []);
  });
  const full = withWhy({ ...call, content: `${mark}said` }, reasoningField ?? 'reasoning_content');
  const changes = (name: string, a: unknown, b: unknown): boolean => {
    try {
      return render([user], { [name]: a }) !== render([user], { [name]: b });
    } catch {
      return false;
    }
  };
  return {
    reasoningField: reasoningField ?? null,
    reasoningBesideContent:
      callArguments === null || shown([user, full, result], [`${mark}said`, `${mark}why`], [tool]),
    thinkingSwitches: thinkingSwitches.filter((name) => changes(name, true, false)),
    reasoningEffort: changes('reasoning_effort', 'low', 'high'),
    thinkingBudget: changes('thinking_budget', 512, 1024),
  };
}
