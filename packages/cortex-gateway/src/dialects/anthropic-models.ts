/** A model as Anthropic's Models API shows it. */

export interface ListedModel {
  readonly id: string;
  /** RFC 3339. */
  readonly created_at: string;
  /** Of `text`, `tools`, `reasoning`, `vision`, ... */
  readonly capabilities: readonly string[];
  readonly max_input_tokens?: number | undefined;
  readonly max_output_tokens?: number | undefined;
}

/**
 * Every key of the SDK's `ModelInfo` is there; null is unknown. `capabilities` says what /v1/messages does
 * with this model, whoever the model is: what is done here for all of them is true for all.
 */
export function toAnthropicModel(model: ListedModel) {
  const writes = model.capabilities.includes('text');
  const reasons = supports(model.capabilities.includes('reasoning'));
  const never = supports(false);
  return {
    type: 'model' as const,
    id: model.id,
    display_name: model.id,
    created_at: model.created_at,
    max_input_tokens: model.max_input_tokens ?? null,
    max_tokens: model.max_output_tokens ?? null,
    lifecycle: 'active' as const,
    line: null,
    deprecated_at: null,
    retires_at: null,
    capabilities: {
      batch: never,
      citations: never,
      code_execution: never,
      context_management: {
        supported: false,
        clear_thinking_20251015: null,
        clear_tool_uses_20250919: null,
        compact_20260112: null,
      },
      effort: { ...reasons, low: reasons, medium: reasons, high: reasons, xhigh: reasons, max: reasons },
      image_input: supports(model.capabilities.includes('vision')),
      pdf_input: never,
      server_tools: { supported: false, code_execution: never, web_search: never },
      structured_outputs: supports(writes),
      thinking: {
        ...reasons,
        types: {
          adaptive: supports(writes),
          between_tools: supports(writes),
          disabled: supports(writes),
          enabled: supports(writes),
        },
      },
    },
  };
}

function supports(supported: boolean): { readonly supported: boolean } {
  return { supported };
}
