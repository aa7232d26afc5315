import type { InnerPart, InnerTool, InnerTurn } from './inner-request.ts';

/** What a turn's markers cost, in characters. */
const frameChars = 8;
/** An image, in characters: what common vision models make of a small one. */
const imageChars = 4 * 256;

/** Rough: four characters a token. The model's own tokenizer knows better, and is asked where it counts. */
export function estimateTurnTokens(turns: readonly InnerTurn[]): number {
  let chars = 0;
  for (const { parts } of turns) chars += frameChars + partsChars(parts);
  return Math.max(1, Math.ceil(chars / 4));
}

/** Of texts that are no turns: raw prompts, inputs of an embedding. */
export function estimateTextTokens(texts: readonly string[]): number {
  return estimateTurnTokens(texts.map((text) => ({ role: 'user', parts: [{ type: 'text', text }] })));
}

export function estimateToolTokens(tools: readonly InnerTool[]): number {
  let chars = 0;
  for (const { name, description, parameters } of tools) {
    chars += frameChars + name.length + (description?.length ?? 0) + JSON.stringify(parameters).length;
  }
  return Math.ceil(chars / 4);
}

function partsChars(parts: readonly InnerPart[]): number {
  let chars = 0;
  for (const part of parts) {
    if (part.type === 'text' || part.type === 'reasoning') chars += part.text.length;
    else if (part.type === 'call') chars += part.name.length + part.arguments.length;
    else if (part.type === 'result') chars += frameChars + partsChars(part.parts);
    else if (part.type === 'image') chars += imageChars;
  }
  return chars;
}
