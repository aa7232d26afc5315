/** Rough sizes of what a request brings, in characters: the model's own tokenizer is where the model is. */
import type { InnerPart, InnerTool, InnerTurn } from '../inner/inner-request.ts';

/** What a turn's markers cost. */
const frameChars = 8;
/** An image, a sound or a document. */
const mediaChars = 1024;

export function charsOfTurn({ parts }: InnerTurn): number {
  return frameChars + charsOfParts(parts);
}

export function charsOfTools(tools: readonly InnerTool[]): number {
  return tools.reduce((sum, tool) => sum + JSON.stringify(tool).length, 0);
}

function charsOfParts(parts: readonly InnerPart[]): number {
  let chars = 0;
  for (const part of parts) {
    if (part.type === 'text' || part.type === 'reasoning') chars += part.text.length;
    else if (part.type === 'call') chars += part.name.length + part.arguments.length;
    else if (part.type === 'result') chars += frameChars + charsOfParts(part.parts);
    else chars += mediaChars;
  }
  return chars;
}
