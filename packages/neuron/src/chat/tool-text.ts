/** Tools and calls told in words, for models whose template does not show them. Pure. */
import type { CallGrammar, ChatFormat, GrammarPart, ParameterStyle } from './format/chat-format.ts';
import { genericToolText } from './format/families/generic.ts';
import { toJson } from './jinja/print.ts';
import type { PlainMessage, TemplateCall, TemplateTool } from './messages.ts';
import type { TemplateTraits } from './template-traits.ts';

/** What the template would leave out: the tools, and the calls of the past in the form the model writes. */
export function withToolTexts(
  messages: readonly PlainMessage[],
  tools: readonly TemplateTool[],
  format: ChatFormat,
  traits: TemplateTraits,
): readonly PlainMessage[] {
  const shown = traits.callArguments === null ? messages.map((each) => withCallText(each, format)) : messages;
  return tools.length > 0 && traits.toolsIn === null ? withToolText(shown, tools, format) : shown;
}

/** The format's words for the tools, at the end of the leading system text. */
function withToolText(
  messages: readonly PlainMessage[],
  tools: readonly TemplateTool[],
  format: ChatFormat,
): readonly PlainMessage[] {
  const text = (format.describeTools ?? genericToolText)(tools.map((tool) => tool.function));
  const [first, ...rest] = messages;
  if (first?.role !== 'system') return [{ role: 'system', content: text }, ...messages];
  return [{ ...first, content: first.content === '' ? text : `${first.content}\n\n${text}` }, ...rest];
}

function withCallText(message: PlainMessage, format: ChatFormat): PlainMessage {
  const { tool_calls: calls, ...rest } = message;
  const grammar = format.calls[0]?.grammar;
  if (calls === undefined || grammar === undefined) return message;
  const texts = calls.map((call) => callText(call, grammar));
  if (texts.includes(null)) return message; // the general form, then; see fit-messages.ts
  const text = grammar.begin + texts.join(grammar.between) + grammar.end;
  return { ...rest, content: rest.content === '' ? text : `${rest.content}\n${text}` };
}

/** The way a grammar would have the call; null where it holds something that is no text. */
function callText(
  { function: { name, arguments: given } }: TemplateCall,
  grammar: CallGrammar,
): string | null {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return null;
  const parts = grammar.call({ name, parameters: {} }).map((part) => partText(part, given));
  return parts.includes(null) ? null : parts.join('');
}

function partText(part: GrammarPart, given: object): string | null {
  switch (part.kind) {
    case 'text':
      return part.text;
    case 'oneOf':
      return part.texts[0] ?? '';
    case 'arguments':
      return toJson(given);
    case 'parameters':
      return parametersText(part.style, given);
    case 'pattern':
      return null;
    default:
      return part satisfies never;
  }
}

function parametersText(style: ParameterStyle, given: object): string | null {
  if (style.values === 'gemma') return null;
  const items = Object.entries(given).map(([name, value]) => {
    const isBare = style.values === 'bare' && typeof value === 'string';
    return style.open(name, isBare) + (isBare ? value : toJson(value)) + style.close;
  });
  return items.join(style.between);
}
