/** The grammar that a recorded answer has to follow, by the path that was asked. */
import assert from 'node:assert/strict';
import { AnthropicGrammar } from 'cortex-gateway/dialects/wire-grammar/anthropic-grammar';
import { OpenAiGrammar } from 'cortex-gateway/dialects/wire-grammar/openai-grammar';
import { ResponsesGrammar } from 'cortex-gateway/dialects/wire-grammar/responses-grammar';
import type { WireGrammar } from 'cortex-gateway/dialects/wire-grammar/wire-grammar';
import type { RecordedCall } from './scripted-stack.test.kit.ts';

type CheckedAnswer = Pick<RecordedCall, 'path' | 'answer' | 'answerType'>;

/** Whole answers are JSON, the others streams. */
export function checkAnswer({ path, answer, answerType }: CheckedAnswer): void {
  if (!answerType.startsWith('text/event-stream')) {
    assert.equal(typeof JSON.parse(answer.toString()), 'object');
    return;
  }
  const grammar = grammarOf(path);
  grammar.push(answer);
  assert.equal(grammar.end(), null, answer.toString());
}

function grammarOf(path: string): WireGrammar {
  if (path.startsWith('/v1/messages')) return new AnthropicGrammar();
  if (path.startsWith('/v1/responses')) return new ResponsesGrammar();
  assert.equal(path, '/v1/chat/completions');
  return new OpenAiGrammar('chat');
}
