/** How one kind of provider is spoken to: from a request for a neuron, and back to a neuron's answer. */
import { AppError } from 'cortex-core/wire/errors';

export interface WireTarget {
  /** The provider's name of the model. */
  readonly model: string;
  readonly outputMax: number | null;
  readonly dropFields: readonly string[];
  readonly maxTokensField: 'max_tokens' | 'max_completion_tokens';
  /** Unix seconds, for what the gateway writes itself. */
  readonly createdSecs: number;
}

export interface WireCall {
  /** Behind the provider's base address. */
  readonly path: string;
  readonly body: Uint8Array;
  readonly stream: boolean;
  /** A fresh translator for a streamed answer. Each call throws an AppError for what is no answer. */
  readonly streamOut: () => ProviderStream;
  /** Translates or checks a whole 2xx answer. Throws an AppError for what is none. */
  readonly wholeOut: (body: Uint8Array) => Uint8Array;
}

export interface ProviderStream {
  /** With no bytes it only throws a fault that is known. */
  push(chunk: Uint8Array): Uint8Array;
  end(): Uint8Array;
}

/** Throws `invalid_request` or `wrong_modality` for what the provider cannot do. */
export type ToWireCall = (path: string, body: Uint8Array, target: WireTarget) => WireCall;

/** What only neurons know: it says how a prompt is rendered, or belongs to this fleet. */
const neuronFields: ReadonlySet<string> = new Set([
  'chat_template_kwargs',
  'enable_thinking',
  'thinking_budget_tokens',
  'continue_final_message',
  'add_generation_prompt',
  'grammar',
  'ignore_eos',
]);

export function isNeuronField(name: string): boolean {
  return neuronFields.has(name) || name.startsWith('cortex_');
}

export function refusesPath(path: string, kind: string): AppError {
  return new AppError('wrong_modality', `the provider of this model (${kind}) does not serve ${path}`, {
    param: 'model',
  });
}
