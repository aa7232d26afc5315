/** Editors, user interfaces and command line tools: what to write where. */
import { type ClientRecipe, exportLines, type RecipeInput } from './client-recipe.ts';

const zed: ClientRecipe = {
  name: 'zed',
  title: 'Zed',
  speaks: 'OpenAI chat completions',
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
  notes: ['The key is asked for in the settings of the agent panel, or read from CORTEX_API_KEY.'],
};

const openWebUi: ClientRecipe = {
  name: 'open-webui',
  title: 'Open WebUI',
  speaks: 'OpenAI chat completions',
  snippets: ({ url, apiKey }) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv(
        { OPENAI_API_BASE_URL: `${url}/v1`, OPENAI_API_KEY: apiKey, ENABLE_OLLAMA_API: 'false' },
        'open-webui serve',
      ),
    },
  ],
  notes: [
    "In a container, use the address of the gateway's machine: 127.0.0.1 is the container itself.",
    'A "direct connection" from the browser works as it is: every origin is allowed.',
  ],
};

const continueDev: ClientRecipe = {
  name: 'continue',
  title: 'Continue',
  speaks: 'OpenAI chat completions',
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
  speaks: 'OpenAI chat completions',
  snippets: (input) => [
    {
      into: 'shell',
      language: 'sh',
      text: withEnv(
        { OPENAI_API_BASE: `${input.url}/v1`, OPENAI_API_KEY: input.apiKey },
        `aider --model openai/${input.model}`,
      ),
    },
  ],
  notes: ['It knows no limits of the model unless .aider.model.metadata.json says them, and warns of it.'],
};

const qwenCode: ClientRecipe = {
  name: 'qwen-code',
  title: 'Qwen Code',
  speaks: 'OpenAI chat completions',
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
  snippets: ({ url, model }) => [
    { into: 'shell', language: 'sh', text: withEnv({ OLLAMA_HOST: url }, `ollama run ${model}`) },
  ],
  notes: ['What a client asks to pull, push or delete is refused: models.toml says what there is.'],
};

const curl: ClientRecipe = {
  name: 'curl',
  title: 'curl',
  speaks: 'OpenAI chat completions',
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
