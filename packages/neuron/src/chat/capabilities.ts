/** What a model can do, from its weights' header and its template. Pure. */
import type { ModelFacts } from 'cortex-core/wire/inference';
import type { CompiledTemplate } from './template.ts';

export interface ModelLook {
  readonly pooling: ModelFacts['pooling'];
  /** Null when the file has none, or one that cannot be read. */
  readonly template: CompiledTemplate | null;
  readonly infill: boolean;
}

export interface Capabilities {
  /** Of `text`, `tools`, `reasoning`, `infill`, `embeddings`, `rerank`; `text` comes first. */
  readonly capabilities: string[];
  readonly tool_call: boolean;
  readonly reasoning: boolean;
}

/** Families whose templates mention the block that the model opens itself. */
const reasoningMarkers = /<think>|\[THINK\]|<\|START_THINKING\|>|<\|channel\|?>|<seed:think>/;

/** `tools` = the template shows tools to the model; a request may offer them to any model that chats. */
export function capabilitiesOf({ pooling, template, infill }: ModelLook): Capabilities {
  if (pooling === 'rank') return { capabilities: ['rerank'], tool_call: false, reasoning: false };
  if (pooling !== 'none') return { capabilities: ['embeddings'], tool_call: false, reasoning: false };
  const traits = template?.traits;
  const tools = traits !== undefined && traits.toolsIn !== null;
  const reasoning =
    traits !== undefined &&
    (traits.reasoningField !== null ||
      traits.thinkingSwitches.length > 0 ||
      traits.reasoningEffort ||
      reasoningMarkers.test(template?.source ?? ''));
  const capabilities = [
    'text',
    ...(tools ? ['tools'] : []),
    ...(reasoning ? ['reasoning'] : []),
    ...(infill ? ['infill'] : []),
  ];
  return { capabilities, tool_call: tools, reasoning };
}
