/** The conversations that every family's template is shown, and the templates in fixtures/. */
import { readdirSync, readFileSync } from 'node:fs';
import type { ChatMessage, ChatTool } from 'cortex-core/wire/openai';
import { toPlainMessages, toTemplateTools } from './messages.ts';
import { ChatTemplate, type RenderInput } from './template.ts';

const fixtures = new URL('../../src/chat/fixtures/', import.meta.url);

export function readFixture(path: string): string {
  return readFileSync(new URL(path, fixtures), 'utf8');
}

/** Names of the templates in fixtures/templates. */
export const families: readonly string[] = readdirSync(new URL('templates/', fixtures))
  .filter((name) => name.endsWith('.jinja'))
  .map((name) => name.replace('.jinja', ''))
  .sort();

export function templateOf(source: string): ChatTemplate {
  return new ChatTemplate(
    { chatTemplate: source, namedTemplates: {}, bosToken: '<s>', eosToken: '</s>', addBos: false },
    {
      modelId: 'm',
      hasChatMl: async () => false,
      now: () => new Date(Date.UTC(2026, 10, 25, 9, 5, 7)),
    },
  );
}

const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string', description: 'Name of the city' },
        days: { type: 'integer', description: 'How many' },
      },
      required: ['city'],
    },
  },
};
const clock = {
  type: 'function',
  function: { name: 'get_time', description: 'Time "now"', parameters: { type: 'object', properties: {} } },
};
const tools = [weather, clock] as unknown as readonly ChatTool[];

function call(id: string, city: string) {
  return {
    id,
    type: 'function',
    function: { name: 'get_weather', arguments: JSON.stringify({ city, days: 2 }) },
  };
}

const opening: readonly ChatMessage[] = [
  { role: 'system', content: 'You are the SYSTEMTEXT.' },
  { role: 'user', content: 'QUESTIONONE: weather in Paris? é日😀' },
] as ChatMessage[];

const oneCall = [
  ...opening,
  {
    role: 'assistant',
    content: null,
    reasoning_content: 'REASONONE',
    tool_calls: [call('call_one', 'CITYPARIS')],
  },
  { role: 'tool', tool_call_id: 'call_one', content: '{"sky": "RESULTONE"}' },
] as ChatMessage[];

const twoCalls = [
  ...oneCall,
  { role: 'assistant', content: 'ANSWERONE.' },
  { role: 'user', content: 'QUESTIONTWO: Rome and Bonn?' },
  {
    role: 'assistant',
    content: '',
    reasoning_content: 'REASONTWO',
    tool_calls: [call('call_two', 'CITYROME'), call('call_three', 'CITYBONN')],
  },
  { role: 'tool', tool_call_id: 'call_three', content: 'RESULTBONN' },
  { role: 'tool', tool_call_id: 'call_two', content: 'RESULTROME' },
] as ChatMessage[];

/** In the order in which they must appear in the prompt. */
export const wordsOfAll = [
  'SYSTEMTEXT',
  'QUESTIONONE',
  'CITYPARIS',
  'RESULTONE',
  'ANSWERONE',
  'QUESTIONTWO',
  'CITYROME',
  'CITYBONN',
  'RESULTROME',
  'RESULTBONN',
] as const;

const chat = [
  ...opening,
  { role: 'assistant', content: 'ANSWERONE.', reasoning_content: 'REASONONE' },
  { role: 'user', content: 'QUESTIONTWO' },
] as ChatMessage[];

function input(
  messages: readonly ChatMessage[],
  more: Partial<Omit<RenderInput, 'messages'>> & { readonly withTools?: boolean } = {},
): RenderInput {
  const { withTools = false, ...rest } = more;
  return {
    messages: toPlainMessages(messages, { modelId: 'm', capabilities: ['text'] }),
    end: 'generation_prompt',
    ...(withTools ? { tools: toTemplateTools(tools) } : {}),
    ...rest,
  };
}

export const conversations: Readonly<Record<string, RenderInput>> = {
  tools: input([...opening], { withTools: true }),
  one_call: input(oneCall, { withTools: true }),
  two_calls: input(twoCalls, { withTools: true }),
  chat: input(chat),
  thinking_off: input(chat, { kwargs: { enable_thinking: false } }),
  thinking_on: input(chat, { kwargs: { enable_thinking: true } }),
  no_system: input([{ role: 'user', content: 'QUESTIONONE' }] as ChatMessage[]),
};

/**
 * What each template is given, for record.py.
 * @public
 */
export async function inputs() {
  const all = [];
  for (const family of families) {
    const template = templateOf(readFixture(`templates/${family}.jinja`));
    for (const [conversation, given] of Object.entries(conversations)) {
      all.push({ family, conversation, variables: await template.variables(given) });
    }
  }
  return all;
}
