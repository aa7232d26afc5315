/** The format of a model, from the text of its own chat template. */
import type { ChatFormat } from './chat-format.ts';
import { apertus, gigachat, nemotron, toolCallsTag } from './families/bracketed.ts';
import { commandA, commandR } from './families/cohere.ts';
import { deepseek } from './families/deepseek.ts';
import type { Family } from './families/family.ts';
import { functionary31, functionary32, functools } from './families/functionary.ts';
import { functionGemma, gemma3, gemma4 } from './families/gemma.ts';
import { generic } from './families/generic.ts';
import { glm } from './families/glm.ts';
import { granite, phi } from './families/granite.ts';
import { harmony, harmonyAnalysis } from './families/harmony.ts';
import { hermes } from './families/hermes.ts';
import { kimi } from './families/kimi.ts';
import { lfm } from './families/lfm.ts';
import { llama, llama4 } from './families/llama.ts';
import { deepseekDsml, minimax } from './families/minimax.ts';
import { mistral } from './families/mistral.ts';
import { qwenCoder, seed } from './families/qwen-coder.ts';
import { reasoningOf } from './families/reasoning.ts';

export interface TemplateTexts {
  readonly chatTemplate: string | null;
  readonly namedTemplates: Readonly<Record<string, string>>;
}

/** Asked in this order: a family whose marks another one's templates hold too comes first. */
const families: readonly Family[] = [
  harmony,
  functionary32,
  functionary31,
  kimi,
  deepseekDsml,
  deepseek,
  minimax,
  seed,
  glm,
  functionGemma,
  gemma4,
  commandA,
  mistral,
  lfm,
  qwenCoder,
  granite,
  nemotron,
  apertus,
  gigachat,
  toolCallsTag,
  hermes,
  phi,
  functools,
  llama4,
  llama,
  commandR,
  gemma3,
  generic,
];

/** For files whose template was replaced by one without marks: what the architecture alone says. */
const byArchitecture: Readonly<Record<string, Family>> = {
  'gpt-oss': harmony,
  gemma3: gemma3,
  lfm2: lfm,
  'command-r': commandR,
};

/**
 * The template that renders tools decides, then the other ones, then the architecture. Never fails: a model
 * that none of them tells is generic.
 */
export function detectFormat(templates: TemplateTexts, architecture: string): ChatFormat {
  const named = templates.namedTemplates;
  const texts = [named.tool_use, templates.chatTemplate, named.default, ...Object.values(named)].filter(
    (text) => typeof text === 'string',
  );
  const all = texts.join('\n');
  for (const text of texts) {
    const family = families.find((each) => each !== generic && each.matches(text));
    if (family !== undefined) return toFormat(family, text, all);
  }
  const family = Object.hasOwn(byArchitecture, architecture) ? byArchitecture[architecture] : undefined;
  return toFormat(family ?? generic, '', all);
}

function toFormat(family: Family, template: string, all: string): ChatFormat {
  // A template that reads `tools` tells the model about them in its own words. Where it does not, the model
  // is told in ours, and answers in the form that we ask for.
  const describes = readsTools(all) ? null : family.describeTools === undefined ? generic : family;
  const asked = describes === generic && family !== generic ? generic.calls(template) : [];
  return {
    name: family.name,
    reasoning: family === harmony ? [harmonyAnalysis] : reasoningOf(all, family.reasoning ?? []),
    calls: family.readTurn ? family.calls(template) : [...new Set([...asked, ...family.calls(template)])],
    callsEndReasoning: family.callsEndReasoning ?? false,
    dropped: family.dropped ?? [],
    answerFrame: family.answerFrame ?? null,
    stops: family.stops,
    idStyle: family.idStyle ?? 'call',
    describeTools: family.readTurn ? null : (describes?.describeTools ?? null),
    readTurn: family.readTurn ?? null,
  };
}

/** Whether a Jinja text uses the variable `tools`. */
function readsTools(template: string): boolean {
  return [...template.matchAll(/\{[{%][\s\S]*?[%}]\}/g)].some(([block]) =>
    /(^|[^\w.'"])(tools|available_tools|custom_tools)\b/.test(block),
  );
}
