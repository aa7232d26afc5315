/** Editors, user interfaces and command line tools: what to write where. */
import { quoteForShell } from '../text.ts';
import { type ClientRecipe, exportLines, type RecipeInput, type Snippet } from './client-recipe.ts';

const zed: ClientRecipe = {
  name: 'zed',
  title: 'Zed',
  speaks: 'OpenAI chat completions',
  tried: 'not run: written from its documentation',
  snippets: ({ url, model, context, output }) => [
    {
      into: 'settings.json',
      language: 'json',
      text: toJson({
        language_models: {
          openai_compatible: {
            cortex: {
              api_url: `${url}/v1`,
              available_models: [
                {
                  name: model,
                  display_name: model,
                  max_tokens: context ?? 32_768,
                  ...(output === null ? {} : { max_output_tokens: output }),
                  capabilities: {
                    tools: true,
                    images: false,
                    parallel_tool_calls: true,
                    prompt_cache_key: false,
                  },
                },
              ],
            },
          },
        },
      }),
    },
  ],
  notes: [
    'The key is asked for in the settings of the agent panel, or read from CORTEX_API_KEY.',
    'Its providers "anthropic" and "ollama" take the address without /v1 as their api_url.',
  ],
};

const openWebUi: ClientRecipe = {
  name: 'open-webui',
  title: 'Open WebUI',
  speaks: "OpenAI chat completions, or Ollama's API",
  tried: 'tried: 0.12.4, by hand, its API and its page',
  snippets: ({ url, apiKey }) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv(
        { OPENAI_API_BASE_URL: `${url}/v1`, OPENAI_API_KEY: apiKey, ENABLE_OLLAMA_API: 'false' },
        'open-webui serve',
      ),
    },
    {
      into: "a shell, over Ollama's API",
      language: 'sh',
      text: withEnv({ OLLAMA_BASE_URL: url, ENABLE_OPENAI_API: 'false' }, 'open-webui serve'),
    },
  ],
  notes: [
    'These count at its first start; later what its admin settings say does.',
    "Its page sends tools of its own with each question, 10,600 tokens in cortex-tiny's small vocabulary.",
    'After an answer it asks for a title, tags and what to ask next, which are requests of their own.',
    "In a container, use the address of the gateway's machine: 127.0.0.1 is the container itself.",
    'A "direct connection" from the browser works as it is: every origin is allowed.',
  ],
};

const continueDev: ClientRecipe = {
  name: 'continue',
  title: 'Continue',
  speaks: 'OpenAI chat completions',
  tried: 'tried: its command line 1.5.47, by hand',
  snippets: (input) => [
    {
      into: '~/.continue/config.yaml',
      language: 'yaml',
      text: [
        'name: cortex',
        'version: 1.0.0',
        'schema: v1',
        'models:',
        `  - name: ${JSON.stringify(input.model)}`,
        '    provider: openai',
        `    model: ${JSON.stringify(input.model)}`,
        `    apiBase: ${input.url}/v1`,
        `    apiKey: ${JSON.stringify(input.apiKey)}`,
        '    roles: [chat, edit, apply]',
        '    capabilities: [tool_use]',
        ...(input.context === null
          ? []
          : ['    defaultCompletionOptions:', `      contextLength: ${input.context}`]),
      ].join('\n'),
    },
  ],
  notes: [],
};

const aider: ClientRecipe = {
  name: 'aider',
  title: 'aider',
  speaks: 'OpenAI chat completions, or Anthropic Messages',
  tried: 'tried: aider-chat 0.86.2, in the test suite',
  snippets: (input) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv(
        { OPENAI_API_BASE: `${input.url}/v1`, OPENAI_API_KEY: input.apiKey },
        `aider --model ${quoteForShell(`openai/${input.model}`)}`,
      ),
    },
    {
      into: 'a shell, over Anthropic Messages',
      language: 'sh',
      text: withEnv(
        { ANTHROPIC_API_BASE: input.url, ANTHROPIC_API_KEY: input.apiKey },
        `aider --model ${quoteForShell(`anthropic/${input.model}`)}`,
      ),
    },
    ...aiderLimits(input),
  ],
  notes: ['Without the limits it works too, and warns that it does not know them.'],
};

function aiderLimits({ model, context, output }: RecipeInput): readonly Snippet[] {
  if (context === null) return [];
  const limits = {
    litellm_provider: 'openai',
    mode: 'chat',
    max_input_tokens: context,
    ...(output === null ? {} : { max_output_tokens: output }),
    input_cost_per_token: 0,
    output_cost_per_token: 0,
  };
  return [
    {
      into: '.aider.model.metadata.json',
      language: 'json',
      text: toJson({
        [`openai/${model}`]: limits,
        [`anthropic/${model}`]: { ...limits, litellm_provider: 'anthropic' },
      }),
    },
  ];
}

const llm: ClientRecipe = {
  name: 'llm',
  title: 'llm',
  speaks: 'OpenAI chat completions',
  tried: 'tried: 0.36, in the test suite',
  snippets: ({ url, model, apiKey }) => [
    {
      into: 'extra-openai-models.yaml',
      language: 'yaml',
      text: [
        `- model_id: ${JSON.stringify(model)}`,
        `  model_name: ${JSON.stringify(model)}`,
        `  api_base: ${url}/v1`,
        '  api_key_name: cortex',
        '  supports_tools: true',
        '  supports_schema: true',
      ].join('\n'),
    },
    {
      into: 'shell',
      language: 'sh',
      text: `llm keys set cortex --value ${quoteForShell(apiKey)}\nllm -m ${quoteForShell(model)} Hello`,
    },
  ],
  notes: ['The file lies in the folder that `dirname "$(llm logs path)"` prints.'],
};

const qwenCode: ClientRecipe = {
  name: 'qwen-code',
  title: 'Qwen Code',
  speaks: 'OpenAI chat completions',
  tried: 'tried: 0.15.10, by hand',
  snippets: (input) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv(
        { OPENAI_BASE_URL: `${input.url}/v1`, OPENAI_API_KEY: input.apiKey, OPENAI_MODEL: input.model },
        'qwen',
      ),
    },
  ],
  notes: [],
};

const ollama: ClientRecipe = {
  name: 'ollama',
  title: 'Ollama clients',
  speaks: "Ollama's API",
  tried: 'tried: ollama 0.6.4 of npm and ollama 0.6.3 of PyPI, in the test suite; the program itself was not',
  snippets: ({ url, model }) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv({ OLLAMA_HOST: url }, `ollama run ${quoteForShell(model)}`),
    },
  ],
  notes: ['What a client asks to pull, push or delete is refused: models.toml says what there is.'],
};

const curl: ClientRecipe = {
  name: 'curl',
  title: 'curl',
  speaks: 'OpenAI chat completions',
  tried: 'tried',
  snippets: ({ url, model, apiKey }: RecipeInput) => [
    {
      into: 'shell',
      language: 'sh',
      text: [
        `curl ${url}/v1/chat/completions \\`,
        `  -H "Authorization: Bearer ${apiKey}" \\`,
        `  -d '{"model":${JSON.stringify(model)},"messages":[{"role":"user","content":"Hello"}]}'`,
      ].join('\n'),
    },
  ],
  notes: [],
};

export const toolRecipes: readonly ClientRecipe[] = [
  zed,
  openWebUi,
  continueDev,
  aider,
  llm,
  qwenCode,
  ollama,
  curl,
];

function withEnv(env: Readonly<Record<string, string>>, command: string): string {
  return `${exportLines(env)}\n${command}`;
}

function toJson(value: unknown): string {
  return JSON.stringify(value, null, 2);
}
