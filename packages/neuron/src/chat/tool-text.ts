/** Tools told in words, to models whose template does not show them. Pure. */
import type { ChatFormat } from './format/chat-format.ts';
import { genericToolText } from './format/families/generic.ts';
import type { PlainMessage, TemplateTool } from './messages.ts';

/** The format's words for the tools, at the end of the leading system text. */
export function withToolText(
  messages: readonly PlainMessage[],
  tools: readonly TemplateTool[],
  format: ChatFormat,
): PlainMessage[] {
  const text = (format.describeTools ?? genericToolText)(tools.map((tool) => tool.function));
  const [first, ...rest] = messages;
  if (first?.role !== 'system') return [{ role: 'system', content: text }, ...messages];
  return [{ ...first, content: first.content === '' ? text : `${first.content}\n\n${text}` }, ...rest];
}
