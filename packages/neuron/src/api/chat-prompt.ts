/** A chat request's prompt as the model's own template and tokenizer make it; to be answered, or counted. */
import type { ChatRequest } from 'cortex-core/wire/openai';
import { endOf, planThinking, planTools, type ToolPlan } from '../chat/chat-fields.ts';
import { startsInReasoning } from '../chat/format/read-turn.ts';
import { toPlainMessages, toTemplateTools } from '../chat/messages.ts';
import { withToolTexts } from '../chat/tool-text.ts';
import type { ServingModel } from '../models/model-entry.ts';
import type { PromptModel } from '../models/prompt-models.ts';
import { refuseOversized } from './prompt-size.ts';

export interface Prompt {
  readonly tokens: Int32Array;
  /** It leaves a reasoning block open. */
  readonly isOpen: boolean;
  /** The end of the text. */
  readonly tail: string;
  /** The model may open a block by itself. */
  readonly mayOpen: boolean;
  readonly budget: number | null;
}

/** The prompt's tokens as the model's template makes them; also what POST /tokenize shows. */
export async function tokenizeChat(
  request: ChatRequest,
  model: PromptModel,
  signal: AbortSignal,
): Promise<Int32Array> {
  return (await readPrompt(request, planTools(request), model, signal)).tokens;
}

/** Of a loaded model; what cannot fit its context is refused before it is tokenized. */
export function promptOf(model: ServingModel): PromptModel {
  const { id, template, format, capabilities, facts } = model;
  return {
    ...{ id, template, format, capabilities, facts },
    tokenize: (text, options, signal) => {
      refuseOversized(text, 'messages', facts);
      // Device and handle are read when they are used: the model may have moved meanwhile.
      return model.device.tokenize(model.handle, text, options, signal);
    },
  };
}

export async function readPrompt(
  request: ChatRequest,
  plan: ToolPlan,
  model: PromptModel,
  signal: AbortSignal,
): Promise<Prompt> {
  const { template, format, capabilities } = model;
  const canReason = capabilities.includes('reasoning');
  const { traits } = await template.chosen(plan.tools.length > 0);
  const { kwargs, budget } = planThinking(request, traits, canReason);
  const tools = toTemplateTools(plan.tools);
  const messages = toPlainMessages(request.messages, { modelId: model.id, capabilities });
  const end = endOf(request);
  const text = await template.render({
    messages: withToolTexts(messages, tools ?? [], format, traits),
    tools,
    end,
    kwargs,
  });
  const tokens = await model.tokenize(text, { addSpecial: true, parseSpecial: true }, signal);
  const tail = text.slice(-200);
  const isOpen = startsInReasoning(format, tail);
  // a client's own grammar is the whole answer
  const isFree = request.grammar === undefined && end === 'generation_prompt';
  // without a switch it may think although it was told not to; the budget of 0 ends that
  const isOff = kwargs.enable_thinking === false && traits.thinkingSwitches.length > 0;
  const mayOpen = canReason && !isOff && isFree;
  return { tokens, isOpen, tail, mayOpen, budget };
}
