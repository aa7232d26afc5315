/**
 * A model's own chat template, compiled once per load.
 *
 * The template comes with the weights and is thus foreign code, though in a language without I/O. What it
 * refuses (`raise_exception`) and what this Jinja cannot do both end as `template_render_failed` with the
 * reason, before any byte of an answer went out.
 */
import { Template } from '@huggingface/jinja';
import { AppError } from 'cortex-core/wire/errors';
import type { ModelFacts } from 'cortex-core/wire/inference';
import type { TemplateMessage } from './messages.ts';

export interface RenderInput {
  readonly messages: readonly TemplateMessage[];
  readonly tools?: readonly unknown[] | undefined;
  readonly addGenerationPrompt: boolean;
  /** `chat_template_kwargs`: become variables of the template. */
  readonly kwargs?: Readonly<Record<string, unknown>> | undefined;
}

type TemplateFacts = Pick<ModelFacts, 'chatTemplate' | 'namedTemplates' | 'bosToken' | 'eosToken' | 'addBos'>;

const chatMl =
  "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content }}" +
  "{{- '<|im_end|>\n' }}" +
  "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}";

/** Variables that a client may not replace. */
const reserved = new Set(['messages', 'tools', 'add_generation_prompt', 'bos_token', 'eos_token']);

export class ChatTemplate {
  readonly #facts: TemplateFacts;
  readonly #modelId: string;
  readonly #hasChatMl: () => Promise<boolean>;
  readonly #compiled = new Map<string, Template>();

  /** `hasChatMl`: whether `<|im_start|>` is one token of the vocabulary; asked only without a template. */
  constructor(modelId: string, facts: TemplateFacts, hasChatMl: () => Promise<boolean>) {
    this.#modelId = modelId;
    this.#facts = facts;
    this.#hasChatMl = hasChatMl;
  }

  /**
   * The prompt's text. A leading beginning-of-sequence token is cut when the tokenizer adds one by itself,
   * because two of them measurably harm answers (llama.cpp does the same in common_chat_templates_apply).
   */
  async render(input: RenderInput): Promise<string> {
    const template = this.#compile(await this.#source(input.tools !== undefined));
    const variables: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(input.kwargs ?? {})) {
      if (!reserved.has(name) && value !== undefined) variables[name] = value;
    }
    variables.messages = input.messages;
    variables.add_generation_prompt = input.addGenerationPrompt;
    variables.bos_token = this.#facts.bosToken ?? '';
    variables.eos_token = this.#facts.eosToken ?? '';
    if (input.tools !== undefined) variables.tools = input.tools;
    try {
      const text = template.render(variables);
      const bos = this.#facts.bosToken;
      return this.#facts.addBos && bos && text.startsWith(bos) ? text.slice(bos.length) : text;
    } catch (cause) {
      throw this.#failed(cause, 'refused these messages');
    }
  }

  /** Whether the template's text reads a variable; a hint for listings, not a proof. */
  mentions(name: string): boolean {
    const texts = [this.#facts.chatTemplate ?? '', ...Object.values(this.#facts.namedTemplates)];
    return texts.some((text) => text.includes(name));
  }

  async #source(withTools: boolean): Promise<string> {
    const named = this.#facts.namedTemplates;
    if (withTools && named.tool_use !== undefined) return named.tool_use;
    const own = this.#facts.chatTemplate ?? named.default;
    if (own !== undefined && own !== null) return own;
    if (await this.#hasChatMl()) return chatMl;
    throw new AppError(
      'template_render_failed',
      `model "${this.#modelId}" has no chat template; use /v1/completions with a raw prompt`,
    );
  }

  #compile(source: string): Template {
    const cached = this.#compiled.get(source);
    if (cached !== undefined) return cached;
    try {
      const template = new Template(source);
      this.#compiled.set(source, template);
      return template;
    } catch (cause) {
      throw this.#failed(cause, 'could not be compiled');
    }
  }

  #failed(cause: unknown, what: string): AppError {
    const reason = (cause instanceof Error ? cause.message : String(cause)).slice(0, 500);
    return new AppError(
      'template_render_failed',
      `the chat template of model "${this.#modelId}" ${what}: ${reason}`,
      { cause, extras: { model_id: this.#modelId } },
    );
  }
}
