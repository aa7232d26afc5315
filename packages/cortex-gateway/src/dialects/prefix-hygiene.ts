/**
 * Takes out of a prompt what clients change in it with every turn, so that a conversation begins with the
 * tokens of its last turn and the prefix cache holds.
 *
 * Problem: agents put a billing header with a hash of the request at the top of their system prompt, a
 * counter of the tokens that are left into it, the time of day beside the date. One changed token there, and
 * all tens of thousands behind it are read again.
 * Design: exact forms only, and only where losing them changes nothing that a model could use: the header is
 * for a billing service, a counter speaks of a context window that is not this model's, a date stays a date.
 * The header and the time are looked for in system texts, the counter also in a user's own; results of tools
 * are never touched. Where no marker is in the bytes, nothing is parsed and nothing is copied. cache_control
 * needs no care: no template renders it.
 */
import type { InnerPart, InnerTurn } from './inner/inner-request.ts';
import type { JsonObject } from './request-body.ts';

const billingLine = /^x-anthropic-billing-header:[^\n]*(?:\n|$)/gm;
const left = /[\d,]+(?:\/[\d,]+)?(?:; [\d,]+ remaining| tokens? left)?/.source;
const tokenCounter = new RegExp(
  `<(total_tokens|system_warning)>\\s*(?:Token usage: )?${left}\\s*</\\1>\\n?`,
  'g',
);
const label = /(?:[Cc]urrent|[Tt]oday's) (?:date and time|datetime|date|time)\b[^\n\d]{0,24}/.source;
const zone = /(?:\s?(?:Z\b|UTC\b|[+-]\d{2}:?\d{2}\b))?/.source;
const timeOfDay = new RegExp(
  `(${label}\\d{4}-\\d{2}-\\d{2})[T ]\\d{2}:\\d{2}(?::\\d{2}(?:\\.\\d+)?)?${zone}`,
  'g',
);

/** One of these is in the bytes wherever one of the patterns can match: letters that JSON never escapes. */
const markers = [
  'x-anthropic-billing-header:',
  'total_tokens',
  'system_warning',
  'urrent date',
  'urrent time',
  "oday's date",
];

function normalizeSystemText(text: string): string {
  return normalizeUserText(text.replace(billingLine, '').replace(timeOfDay, '$1'));
}

function normalizeUserText(text: string): string {
  return text.includes('<total_tokens>') || text.includes('<system_warning>')
    ? text.replace(tokenCounter, '')
    : text;
}

export interface NormalizedTurns {
  readonly turns: readonly InnerTurn[];
  readonly changed: boolean;
}

export function normalizeTurns(turns: readonly InnerTurn[]): NormalizedTurns {
  let changed = false;
  const normalized = turns.map((turn): InnerTurn => {
    if (turn.role === 'assistant') return turn;
    const normalize = turn.role === 'system' ? normalizeSystemText : normalizeUserText;
    const parts = turn.parts.map((part): InnerPart => {
      if (part.type !== 'text') return part;
      const text = normalize(part.text);
      if (text === part.text) return part;
      changed = true;
      return { ...part, text };
    });
    return { ...turn, parts: parts.filter((part) => part.type !== 'text' || part.text !== '') };
  });
  return changed ? { turns: normalized, changed } : { turns, changed };
}

/** Whether a body may hold something to take out: a search of its bytes. */
export function mayNeedHygiene(body: Uint8Array): boolean {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  return markers.some((marker) => bytes.includes(marker));
}

/** The messages of a chat request; null = nothing had to change. */
export function normalizeChatMessages(messages: readonly unknown[]): readonly unknown[] | null {
  let changed = false;
  const normalized = messages.map((each) => {
    const message = each as JsonObject | null;
    const isSystem = message?.role === 'system' || message?.role === 'developer';
    if (message === null || typeof message !== 'object' || !(isSystem || message.role === 'user'))
      return each;
    const content = normalizeContent(message.content, isSystem ? normalizeSystemText : normalizeUserText);
    if (content === message.content) return each;
    changed = true;
    return { ...message, content };
  });
  return changed ? normalized : null;
}

/** The same value where nothing had to change. */
function normalizeContent(content: unknown, normalize: (text: string) => string): unknown {
  if (typeof content === 'string') return normalize(content);
  if (!Array.isArray(content)) return content;
  let changed = false;
  const parts = content.map((each) => {
    const part = each as JsonObject | null;
    if (typeof part?.text !== 'string') return each;
    const text = normalize(part.text);
    if (text === part.text) return each;
    changed = true;
    return { ...part, text };
  });
  return changed ? parts : content;
}
