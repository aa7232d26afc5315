/**
 * Answers for clients that use `functions`, the form of before `tools`: one call, as `function_call`. Pure.
 */
import type { ChatChunk, ChatCompletion } from 'cortex-core/wire/openai';

type Plain = Readonly<Record<string, unknown>>;

export function toLegacyChunk(chunk: ChatChunk): Plain {
  const choices = chunk.choices.map(({ delta, finish_reason: reason, ...choice }) => {
    const { tool_calls: calls, ...rest } = delta;
    const call = calls?.[0]?.function;
    const shown = call === undefined ? rest : { ...rest, function_call: call };
    return { ...choice, delta: shown, finish_reason: toLegacyReason(reason) };
  });
  return { ...chunk, choices };
}

export function toLegacyAnswer(answer: ChatCompletion): Plain {
  const choices = answer.choices.map(({ message, finish_reason: reason, ...choice }) => {
    const { tool_calls: calls, ...rest } = message;
    const call = calls?.[0]?.function;
    const shown = call === undefined ? rest : { ...rest, function_call: call };
    return { ...choice, message: shown, finish_reason: toLegacyReason(reason) };
  });
  return { ...answer, choices };
}

function toLegacyReason(reason: string | null): string | null {
  return reason === 'tool_calls' ? 'function_call' : reason;
}
