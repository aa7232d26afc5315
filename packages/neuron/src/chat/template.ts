/**
 * A model's own chat template, compiled once per load.
 *
 * The template comes with the weights and is thus foreign code, though in a language without I/O. What it
 * refuses (`raise_exception`) and what this Jinja cannot do both end as `template_render_failed` with the
 * line and the reason, before any byte of an answer went out; there is no second template to fall back to.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { ModelFacts } from 'cortex-core/wire/inference';
import { fitMessages } from './fit-messages.ts';
import { JinjaTemplate } from './jinja/jinja.ts';
import { JinjaError } from './jinja/syntax.ts';
import type { PlainMessage, TemplateTool } from './messages.ts';
import { probeTemplate, type TemplateTraits } from './template-traits.ts';

export interface RenderInput {
  readonly messages: readonly PlainMessage[];
  readonly tools?: readonly TemplateTool[] | undefined;
  /** `continue`: the last message, an assistant's, is left open for the model to go on with. */
  readonly end: 'generation_prompt' | 'nothing' | 'continue';
  /** `chat_template_kwargs`: become variables of the template. */
  readonly kwargs?: Readonly<Record<string, unknown>> | undefined;
}

export type TemplateFacts = Pick<
  ModelFacts,
  'chatTemplate' | 'namedTemplates' | 'bosToken' | 'eosToken' | 'addBos'
>;

export interface TemplateContext {
  readonly modelId: string;
  /** Whether `<|im_start|>` is one token of the vocabulary; asked only without a template. */
  readonly hasChatMl: () => Promise<boolean>;
  /** What `strftime_now` shows. */
  readonly now: () => Date;
}

const chatMl =
  "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content }}" +
  "{{- '<|im_end|>\n' }}" +
  "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}";

/** Turns of loops in one probe: a template that needs more for two messages is not probed at any price. */
const probeStepsMax = 20_000;
/** Variables that a client may not replace. */
const reserved = new Set(['messages', 'tools', 'add_generation_prompt', 'bos_token', 'eos_token']);
/** Ends the text of a message that is continued; occurs in no template. */
const cutMark = '\u2060cortex-continues-here\u2060';

/** One of a model's templates, ready for use. */
export interface CompiledTemplate {
  readonly source: string;
  readonly traits: TemplateTraits;
}

interface Compiled extends CompiledTemplate {
  readonly name: string;
  readonly template: JinjaTemplate;
}

export class ChatTemplate {
  readonly #facts: TemplateFacts;
  readonly #context: TemplateContext;
  readonly #compiled = new Map<string, Compiled>();

  constructor(facts: TemplateFacts, context: TemplateContext) {
    this.#facts = facts;
    this.#context = context;
  }

  /**
   * The prompt's text. A leading beginning-of-sequence token is cut when the tokenizer adds one by itself,
   * because two of them measurably harm answers (llama.cpp does the same in common_chat_templates_apply).
   */
  async render(input: RenderInput): Promise<string> {
    const { compiled, variables } = await this.#prepare(input);
    let text: string;
    try {
      text = compiled.template.render(variables, this.#context.now);
    } catch (cause) {
      throw this.#failed('refused these messages', compiled.name, lineOf(cause), cause);
    }
    const bos = this.#facts.bosToken;
    const bare = this.#facts.addBos && bos && text.startsWith(bos) ? text.slice(bos.length) : text;
    if (input.end !== 'continue') return bare;
    const end = bare.lastIndexOf(cutMark);
    if (end !== -1) return bare.slice(0, end);
    throw this.#failed('does not show the last message, which is to be continued', compiled.name, 0);
  }

  /** What the template is given for a request. */
  async variables(input: RenderInput): Promise<Readonly<Record<string, unknown>>> {
    return (await this.#prepare(input)).variables;
  }

  /** The template that a request with or without tools would be rendered with, and what it can take. */
  async chosen(withTools: boolean): Promise<CompiledTemplate> {
    return this.#choose(withTools);
  }

  /** As `chosen` with tools, for listings: null where the file has no template or one that cannot be read. */
  look(): CompiledTemplate | null {
    const { chatTemplate, namedTemplates: named } = this.#facts;
    const source = named.tool_use ?? chatTemplate ?? named.default;
    if (source === undefined || source === null) return null;
    try {
      return this.#compile(named.tool_use === undefined ? 'default' : 'tool_use', source);
    } catch {
      return null;
    }
  }

  async #choose(withTools: boolean): Promise<Compiled> {
    const named = this.#facts.namedTemplates;
    if (withTools && named.tool_use !== undefined) return this.#compile('tool_use', named.tool_use);
    const own = this.#facts.chatTemplate ?? named.default;
    if (own !== undefined && own !== null) return this.#compile('default', own);
    if (await this.#context.hasChatMl()) return this.#compile('chatml', chatMl);
    throw new AppError(
      'template_render_failed',
      `model "${this.#context.modelId}" has no chat template; use /v1/completions with a raw prompt`,
      { extras: { model_id: this.#context.modelId } },
    );
  }

  #compile(name: string, source: string): Compiled {
    const cached = this.#compiled.get(name);
    if (cached !== undefined) return cached;
    let template: JinjaTemplate;
    try {
      template = new JinjaTemplate(source);
    } catch (cause) {
      throw this.#failed('cannot be read', name, lineOf(cause), cause);
    }
    const base = this.#baseVariables();
    const traits = probeTemplate((messages, variables) => {
      const all = { add_generation_prompt: true, ...base, ...variables, messages };
      return template.render(all, this.#context.now, probeStepsMax);
    });
    const compiled = { name, source, template, traits };
    this.#compiled.set(name, compiled);
    return compiled;
  }

  #baseVariables() {
    return {
      bos_token: this.#facts.bosToken ?? '',
      eos_token: this.#facts.eosToken ?? '',
      // transformers passes these always, none where there are none: templates are written against that
      tools: null,
      documents: null,
    };
  }

  async #prepare(input: RenderInput) {
    const compiled = await this.#choose(input.tools !== undefined);
    const { traits } = compiled;
    const tools = traits.needsDescription ? input.tools?.map(describe) : input.tools;
    const given = input.end === 'continue' ? markLast(input.messages) : input.messages;
    const own: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(input.kwargs ?? {})) {
      if (!reserved.has(name) && value !== undefined) own[name] = value;
    }
    // one switch for all families: `thinking` is what DeepSeek's and Granite's templates call it
    const thinks = own.enable_thinking;
    if (thinks !== undefined && traits.thinkingSwitches.includes('thinking')) own.thinking ??= thinks;
    const isVariable = tools !== undefined && traits.toolsIn !== 'system_message';
    const variables = {
      ...this.#baseVariables(),
      ...(traits.needsToolList ? { tools: [] } : {}),
      ...own,
      ...(isVariable ? { [traits.toolsIn ?? 'tools']: tools } : {}),
      messages: fitMessages(given, traits, tools),
      add_generation_prompt: input.end === 'generation_prompt',
    };
    return { compiled, variables };
  }

  #failed(what: string, name: string, line: number, cause?: unknown): AppError {
    const { modelId } = this.#context;
    const reason = cause instanceof Error ? `: ${cause.message.slice(0, 500)}` : '';
    const where = line === 0 ? '' : ` at line ${line}`;
    return new AppError(
      'template_render_failed',
      `the chat template (${name}) of model "${modelId}" ${what}${where}${reason}`,
      {
        cause,
        extras: { model_id: modelId, template: name, ...(line === 0 ? {} : { template_line: line }) },
      },
    );
  }
}

function lineOf(thrown: unknown): number {
  return thrown instanceof JinjaError ? thrown.line : 0;
}

function markLast(messages: readonly PlainMessage[]): readonly PlainMessage[] {
  const last = messages.at(-1);
  if (last === undefined) return messages;
  return [...messages.slice(0, -1), { ...last, content: last.content + cutMark }];
}

function describe(tool: TemplateTool): TemplateTool {
  return { ...tool, function: { ...tool.function, description: tool.function.description ?? '' } };
}
