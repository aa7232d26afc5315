/** The markers of reasoning blocks, and which of them a template uses. */
import type { ReasoningMarkers } from '../chat-format.ts';

/** Plain-text tags are searched for only where no text was said: a model may write about `<think>`. */
function tag(name: string): ReasoningMarkers {
  return { open: `<${name}>`, close: `</${name}>`, anywhere: false };
}

const think = tag('think');

/** Special tokens, which a model does not write by chance. */
export const thinkToken: ReasoningMarkers = { open: '[THINK]', close: '[/THINK]', anywhere: true };
export const cohereThinking: ReasoningMarkers = {
  open: '<|START_THINKING|>',
  close: '<|END_THINKING|>',
  anywhere: true,
};
export const gemmaThought: ReasoningMarkers = {
  open: '<|channel>thought',
  close: '<channel|>',
  anywhere: true,
};
/** Granite 3.2 thinks under headings. */
const graniteHeadings: ReasoningMarkers = {
  open: 'Here is my thought process:',
  close: 'Here is my response:',
  anywhere: false,
};
/** Apriel 1.6; the prompt ends with the heading. */
const aprielSteps: ReasoningMarkers = {
  open: 'Here are my reasoning steps:',
  close: '[BEGIN FINAL RESPONSE]',
  anywhere: false,
};

const known: readonly ReasoningMarkers[] = [
  thinkToken,
  cohereThinking,
  gemmaThought,
  graniteHeadings,
  aprielSteps,
  tag('seed:think'),
  tag('mm:think'),
  tag('thinking'),
  tag('thought'),
  tag('reasoning'),
  { open: '<|think|>', close: '<|/think|>', anywhere: true },
  { open: '<|begin_of_thought|>', close: '<|end_of_thought|>', anywhere: true },
  think,
];

/**
 * The markers a template mentions, then those of the family, then `<think>`: fine-tuned models think in it
 * though their template says nothing, and at the start of an answer it means nothing else.
 */
export function reasoningOf(
  template: string,
  family: readonly ReasoningMarkers[],
): readonly ReasoningMarkers[] {
  const mentioned = known.filter(({ close }) => template.includes(close));
  const byOpen = new Map([...mentioned, ...family, think].map((markers) => [markers.open, markers]));
  return [...byOpen.values()];
}
