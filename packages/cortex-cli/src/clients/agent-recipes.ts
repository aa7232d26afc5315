/**
 * The agents that `cortex launch` starts. What each reads was seen from the real programs:
 * Claude Code 2.1.197, Codex 0.169.0, opencode 1.18.33.
 */
import { type ClientRecipe, exportLines, type LaunchPlan, type RecipeInput } from './client-recipe.ts';

export const claudeRecipe: ClientRecipe = {
  name: 'claude',
  title: 'Claude Code',
  speaks: 'Anthropic Messages',
  tried: 'tried: 2.1.197, in the test suite',
  snippets: (input) => [
    { into: 'shell', language: 'sh', text: `${exportLines(claudePlan(input).env)}\nclaude` },
  ],
  notes: [
    'Its own prompt and tools take 15,000 to 20,000 tokens: the model needs a context of 32,768 or more.',
    'CLAUDE_CODE_ATTRIBUTION_HEADER=0 leaves out a line that changes the head of every prompt.',
    'Where a program asks for a claude-* name all the same, an alias "claude-*" in models.toml answers it.',
  ],
  launch: claudePlan,
};

/** A token, not a key: before Claude Code uses a key it asks at the terminal; a token it takes. */
function claudePlan({ url, model, context, output, apiKey }: RecipeInput): LaunchPlan {
  return {
    program: 'claude',
    install: 'npm install -g @anthropic-ai/claude-code',
    promptTokens: 19_000,
    args: [],
    env: {
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_AUTH_TOKEN: apiKey,
      ANTHROPIC_API_KEY: null,
      CLAUDE_CODE_USE_BEDROCK: null,
      CLAUDE_CODE_USE_VERTEX: null,
      ANTHROPIC_MODEL: model,
      ANTHROPIC_DEFAULT_OPUS_MODEL: model,
      ANTHROPIC_DEFAULT_SONNET_MODEL: model,
      ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
      CLAUDE_CODE_SUBAGENT_MODEL: model,
      ...(context === null ? {} : { CLAUDE_CODE_MAX_CONTEXT_TOKENS: String(context) }),
      ...(output === null && context === null
        ? {}
        : { CLAUDE_CODE_MAX_OUTPUT_TOKENS: String(answerTokens(context, output)) }),
      CLAUDE_CODE_ATTRIBUTION_HEADER: '0',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
      ENABLE_TOOL_SEARCH: 'false',
    },
  };
}

export const codexRecipe: ClientRecipe = {
  name: 'codex',
  title: 'Codex',
  speaks: 'OpenAI Responses',
  tried: 'tried: 0.169.0, in the test suite',
  snippets: (input) => [
    { into: '~/.codex/config.toml', language: 'toml', text: codexConfig(input).join('\n') },
    { into: 'shell', language: 'sh', text: `${exportLines({ CORTEX_API_KEY: input.apiKey })}\ncodex` },
  ],
  notes: [
    'Its own prompt and tools take about 10,000 tokens.',
    'It warns that it has no metadata of the model: it has the context from these lines.',
  ],
  launch: (input) => ({
    program: 'codex',
    install: 'npm install -g @openai/codex',
    promptTokens: 9500,
    args: codexOverrides(input).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
    env: { CORTEX_API_KEY: input.apiKey },
  }),
};

/** Keys of config.toml with values in TOML. */
function codexOverrides({ url, model, context }: RecipeInput): readonly (readonly [string, string])[] {
  const provider = 'model_providers.cortex';
  return [
    ['model', toToml(model)],
    ['model_provider', '"cortex"'],
    ...(context === null ? [] : [['model_context_window', String(context)] as const]),
    [`${provider}.name`, '"cortex"'],
    [`${provider}.base_url`, toToml(`${url}/v1`)],
    [`${provider}.env_key`, '"CORTEX_API_KEY"'],
    [`${provider}.wire_api`, '"responses"'],
  ];
}

function codexConfig(input: RecipeInput): readonly string[] {
  return codexOverrides(input).map(([key, value]) => `${key} = ${value}`);
}

/** A basic string of TOML takes every escape that JSON writes. */
function toToml(text: string): string {
  return JSON.stringify(text);
}

export const opencodeRecipe: ClientRecipe = {
  name: 'opencode',
  title: 'opencode',
  speaks: 'OpenAI chat completions',
  tried: 'tried: 1.18.33, in the test suite',
  snippets: (input) => [
    { into: 'opencode.json', language: 'json', text: JSON.stringify(opencodeConfig(input), null, 2) },
    { into: 'shell', language: 'sh', text: `${exportLines({ CORTEX_API_KEY: input.apiKey })}\nopencode` },
  ],
  notes: [
    'Its own prompt and tools take about 8,000 tokens; the limits let it compact in time.',
    'It asks for a title while it asks the question, so the model needs two slots or one of them waits.',
    'With npm "@ai-sdk/anthropic" it speaks Anthropic Messages, with "@ai-sdk/openai" Responses; all work.',
  ],
  launch: (input) => ({
    program: 'opencode',
    install: 'npm install -g opencode-ai',
    promptTokens: 8000,
    args: [],
    env: { OPENCODE_CONFIG_CONTENT: JSON.stringify(opencodeConfig(input)), CORTEX_API_KEY: input.apiKey },
  }),
};

function opencodeConfig({ url, model, context, output }: RecipeInput): object {
  const limit = context === null ? {} : { limit: { context, output: answerTokens(context, output) } };
  return {
    $schema: 'https://opencode.ai/config.json',
    provider: {
      cortex: {
        npm: '@ai-sdk/openai-compatible',
        name: 'cortex',
        options: { baseURL: `${url}/v1`, apiKey: '{env:CORTEX_API_KEY}' },
        models: { [model]: { name: model, ...limit } },
      },
    },
    model: `cortex/${model}`,
    small_model: `cortex/${model}`,
  };
}

/** Agents keep room for a whole answer free: an answer as long as the context would leave no prompt. */
function answerTokens(context: number | null, output: number | null): number {
  const room = context === null ? 8192 : Math.max(256, Math.floor(context / 8));
  return Math.min(output ?? room, room, 32_000);
}
