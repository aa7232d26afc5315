/** What the answer to a chat request must be: calls, JSON, the client's own grammar, or anything. Pure. */
import { AppError } from 'cortex-core/wire/errors';
import type { GrammarSpec, ReasoningSpec } from 'cortex-core/wire/inference';
import type { ChatRequest } from 'cortex-core/wire/openai';
import type { ToolPlan } from './chat-fields.ts';
import { toCallGrammar } from './format/call-grammar.ts';
import type { ChatFormat } from './format/chat-format.ts';
import { toOfferedTools } from './format/offered-tools.ts';
import { behindTexts, eitherGrammar } from './grammar/either-grammar.ts';
import { toResponseGrammar } from './grammar/response-grammar.ts';
import { endlessGrammar } from './sampling.ts';

/** gpt-oss writes a header before every message, also before the one that must be JSON. */
const harmonyFinal = ['<|channel|>final<|message|>', '<|start|>assistant<|channel|>final<|message|>'];

/**
 * Forced calls and `response_format` are enforced from the first token behind the reasoning. With `auto` a
 * call is enforced from where it begins; together with a `response_format` the answer is JSON or calls.
 */
export function planGrammar(request: ChatRequest, plan: ToolPlan, format: ChatFormat): GrammarSpec | null {
  const grammar = toGrammar(request, plan, format);
  if (grammar !== null && request.ignore_eos === true) throw endlessGrammar();
  return grammar;
}

function toGrammar(request: ChatRequest, plan: ToolPlan, format: ChatFormat): GrammarSpec | null {
  const { choice, parallel } = plan;
  const own = request.grammar === undefined ? null : { gbnf: request.grammar };
  const answer = withHeader(toResponseGrammar(request.response_format), format);
  if (own !== null && answer !== null) throw exclude('grammar', 'response_format');
  const offered = toOfferedTools(plan.tools);
  const isForced = choice.mode === 'required' || choice.mode === 'named';
  if (isForced) {
    if (own !== null) throw exclude('grammar', 'tool_choice');
    const which = choice.mode === 'named' ? { name: choice.name } : 'required';
    return toCallGrammar(format, offered, { choice: which, parallel });
  }
  if (own !== null || offered.length === 0) return own ?? answer;
  if (answer === null) return toCallGrammar(format, offered, { choice: 'auto', parallel });
  const calls = toCallGrammar(format, offered, { choice: 'required', parallel });
  return calls === null ? answer : eitherGrammar(answer, calls);
}

function withHeader(grammar: GrammarSpec | null, format: ChatFormat): GrammarSpec | null {
  return grammar !== null && format.name === 'harmony' ? behindTexts(harmonyFinal, grammar) : grammar;
}

/** Whether a call may come; with a grammar of the client's own, that says what may. */
export function mayCall(request: ChatRequest, { tools }: ToolPlan): boolean {
  return request.grammar === undefined && toOfferedTools(tools).length > 0;
}

export interface ReasoningPlan {
  readonly format: ChatFormat;
  /** The prompt left a block open. */
  readonly isOpen: boolean;
  /** The end of the prompt. */
  readonly tail: string;
  /** The model may open one by itself. */
  readonly mayOpen: boolean;
  /** See mayCall(). */
  readonly mayCall: boolean;
  readonly budget: number | null;
}

/** Where the block of a thinking model ends, for a grammar that begins behind it and for a budget. */
export function planReasoning({
  format,
  isOpen,
  tail,
  mayOpen,
  mayCall,
  budget,
}: ReasoningPlan): ReasoningSpec | null {
  const opened = format.reasoning.find(({ open }) => isOpen && tail.trimEnd().endsWith(open.trimEnd()));
  const markers = opened ?? format.reasoning[0];
  if (markers === undefined || !(isOpen || mayOpen)) return null;
  // Only calls in the model's own form: what else is read as one may be a word in a thought.
  const endsAt = mayCall && format.callsEndReasoning ? (format.calls[0]?.grammar.triggers ?? []) : [];
  return { isOpen, start: markers.open, end: markers.close, endsAt, budget };
}

function exclude(param: string, other: string): AppError {
  return new AppError('invalid_request', `"${param}" and "${other}" exclude each other; leave one out`, {
    param,
  });
}
