import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chatRequestSchema, parseBody } from 'cortex-core/wire/openai';
import { planTools } from './chat-fields.ts';
import { mayCall, planReasoning } from './chat-grammar.ts';
import { samples } from './format/families.test.kit.ts';
import { formatOf } from './format/format.test.kit.ts';

function endsOf(family: string, fields: object): readonly string[] | undefined {
  const format = formatOf(samples.find((sample) => sample.family === family)?.template ?? '');
  const request = parseBody(chatRequestSchema, { model: 'm', messages: [{ role: 'user' }], ...fields });
  const tail = format.reasoning[0]?.open ?? '';
  const calls = mayCall(request, planTools(request));
  return planReasoning({ format, isOpen: true, tail, mayOpen: true, mayCall: calls, budget: null })?.endsAt;
}

describe('planReasoning()', () => {
  const tools = [{ type: 'function', function: { name: 'f' } }];

  it('has the block end at a call where the family means it so and a call may come', () => {
    assert.deepEqual(endsOf('qwen-coder', { tools }), ['<tool_call>']);
    assert.deepEqual(endsOf('qwen-coder', { tools, tool_choice: 'required' }), ['<tool_call>']);
    assert.deepEqual(endsOf('hermes', { tools }), []);
    assert.deepEqual(endsOf('qwen-coder', {}), []);
    assert.deepEqual(endsOf('qwen-coder', { tools, tool_choice: 'none' }), []);
    assert.deepEqual(endsOf('qwen-coder', { tools, grammar: 'root ::= "a"' }), []);
  });
});
