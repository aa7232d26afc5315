/**
 * Hermes and Qwen 2.5/3, Granite 4, MiMo and many fine-tunes: `<tool_call>{"name": ..., "arguments":
 * ...}</tool_call>`. Some of them write tags per parameter at times, as Qwen3-Coder does; that is read too.
 * Source: the chat templates of NousResearch/Hermes-2-Pro and Qwen/Qwen3.
 */
import type { Family } from './family.ts';
import { hermesCalls } from './hermes-calls.ts';
import { qwenCoderCalls } from './qwen-coder.ts';

export const hermes: Family = {
  name: 'hermes',
  matches: (template) => template.includes('<tool_call>'),
  calls: () => [hermesCalls, qwenCoderCalls],
  stops: ['<|im_end|>'],
};
