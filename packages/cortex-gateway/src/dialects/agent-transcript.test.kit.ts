/**
 * An agent's session as its client sends it, turn after turn, in the shape of Claude Code's: a billing header
 * with a new hash each time, a counter of the tokens that are left, the time beside the date, cache_control
 * that moves to the newest block, blocks that become plain texts when they are history.
 */

const cached = { cache_control: { type: 'ephemeral' } };
const text = (value: string, more: object = {}) => ({ type: 'text', text: value, ...more });

const rules = Array.from(
  { length: 120 },
  (_, at) => `${at + 1}. Read a file before you change it, and keep to what was asked of you (${at}).`,
).join('\n');

const tools = ['Read', 'Edit', 'Bash', 'Grep'].map((name) => ({
  name,
  description: `${name}: ${'does one thing and says what came of it. '.repeat(10)}`,
  input_schema: {
    $schema: 'http://json-schema.org/draft-07/schema#',
    type: 'object',
    properties: { path: { type: 'string' }, limit: { type: 'integer', exclusiveMinimum: 0 } },
    required: ['path'],
    additionalProperties: false,
  },
}));

export interface AgentTurns {
  /** Bodies of POST /v1/messages. */
  readonly messages: readonly object[];
  /** The same session as bodies of POST /v1/chat/completions. */
  readonly chat: readonly object[];
}

export function agentTurns(count: number): AgentTurns {
  const at = (turn: number) => `2026-11-25T12:${String(30 + turn)}:0${turn % 10}Z`;
  const headerOf = (turn: number) =>
    `x-anthropic-billing-header: cc_version=2.1.330.${turn}; cc_entrypoint=cli; cch=${(turn * 7919 + 4096).toString(16)};`;
  const environmentOf = (turn: number) =>
    `Working directory: /home/dev/app\nCurrent date and time: ${at(turn)}\n${rules}\n` +
    `<total_tokens>${200_000 - turn * 1311} tokens left</total_tokens>`;
  const resultOf = (turn: number) => `${turn}: ${'export const value = 1; // as it was found\n'.repeat(12)}`;

  const messages = Array.from({ length: count }, (_, turn) => {
    const steps = Array.from({ length: turn }, (_, step) => {
      const isLast = step === turn - 1;
      const result = { type: 'tool_result', tool_use_id: `toolu_${step}`, content: resultOf(step) };
      return [
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: `Step ${step}.`, signature: 'ErUB' },
            text(`I read file ${step}.`),
            {
              type: 'tool_use',
              id: `toolu_${step}`,
              name: 'Read',
              input: { path: `/home/dev/app/${step}.ts` },
            },
          ],
        },
        { role: 'user', content: isLast ? [{ ...result, ...cached }] : [result] },
      ];
    });
    const question = '<system-reminder>Be brief.</system-reminder>\nFix the failing test.';
    return {
      ...{ model: 'm', max_tokens: 128_000, stream: true, tools, thinking: { type: 'adaptive' } },
      system: [text(headerOf(turn)), text('You are an agent.', cached), text(environmentOf(turn), cached)],
      messages: [
        { role: 'user', content: turn === 0 ? [text(question, cached)] : question },
        { role: 'system', content: 'The user has opened app.ts.' },
        ...steps.flat(),
      ],
    };
  });
  const chat = Array.from({ length: count }, (_, turn) => ({
    model: 'm',
    stream: true,
    tools: tools.map(({ name, description, input_schema: parameters }) => ({
      ...{ type: 'function', function: { name, description, parameters } },
    })),
    messages: [
      { role: 'system', content: `${headerOf(turn)}\n${environmentOf(turn)}` },
      { role: 'user', content: 'Fix the failing test.' },
      ...Array.from({ length: turn }, (_, step) => [
        {
          role: 'assistant',
          content: null,
          tool_calls: [
            {
              id: `call_${step}`,
              type: 'function',
              function: { name: 'Read', arguments: `{"path":"${step}.ts"}` },
            },
          ],
        },
        { role: 'tool', tool_call_id: `call_${step}`, content: resultOf(step) },
      ]).flat(),
    ],
  }));
  return { messages, chat };
}
