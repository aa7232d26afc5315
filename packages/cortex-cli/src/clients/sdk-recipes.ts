/** Libraries: the lines that make a client of the gateway. */
import type { ClientRecipe, RecipeInput, Snippet } from './client-recipe.ts';

const q = (text: string): string => JSON.stringify(text);

function js(name: string, title: string, speaks: string, file: string, lines: Lines): ClientRecipe {
  return { name, title, speaks, notes: [], snippets: (input) => [snippet(file, 'js', lines(input))] };
}

function python(name: string, title: string, speaks: string, lines: Lines): ClientRecipe {
  return {
    name,
    title,
    speaks,
    notes: [],
    snippets: (input) => [snippet('a program', 'python', lines(input))],
  };
}

type Lines = (input: RecipeInput) => readonly string[];

function snippet(into: string, language: Snippet['language'], lines: readonly string[]): Snippet {
  return { into, language, text: lines.join('\n') };
}

export const sdkRecipes: readonly ClientRecipe[] = [
  js('openai-js', 'OpenAI SDK for JavaScript', 'OpenAI', 'a program', ({ url, model, apiKey }) => [
    "import OpenAI from 'openai';",
    '',
    `const client = new OpenAI({ baseURL: ${q(`${url}/v1`)}, apiKey: ${q(apiKey)} });`,
    'const answer = await client.chat.completions.create({',
    `  model: ${q(model)},`,
    "  messages: [{ role: 'user', content: 'Hello' }],",
    '});',
  ]),
  python('openai-python', 'OpenAI SDK for Python', 'OpenAI', ({ url, model, apiKey }) => [
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url=${q(`${url}/v1`)}, api_key=${q(apiKey)})`,
    'answer = client.chat.completions.create(',
    `    model=${q(model)}, messages=[{"role": "user", "content": "Hello"}]`,
    ')',
  ]),
  js('anthropic-js', 'Anthropic SDK for JavaScript', 'Anthropic Messages', 'a program', (input) => [
    "import Anthropic from '@anthropic-ai/sdk';",
    '',
    `const client = new Anthropic({ baseURL: ${q(input.url)}, apiKey: ${q(input.apiKey)} });`,
    'const message = await client.messages.create({',
    `  model: ${q(input.model)},`,
    '  max_tokens: 1024,',
    "  messages: [{ role: 'user', content: 'Hello' }],",
    '});',
  ]),
  python('anthropic-python', 'Anthropic SDK for Python', 'Anthropic Messages', (input) => [
    'from anthropic import Anthropic',
    '',
    `client = Anthropic(base_url=${q(input.url)}, api_key=${q(input.apiKey)})`,
    'message = client.messages.create(',
    `    model=${q(input.model)}, max_tokens=1024, messages=[{"role": "user", "content": "Hello"}]`,
    ')',
  ]),
  {
    name: 'ai-sdk',
    title: 'Vercel AI SDK',
    speaks: 'OpenAI chat completions',
    snippets: ({ url, model, apiKey }) => [
      snippet('a program', 'js', [
        "import { createOpenAICompatible } from '@ai-sdk/openai-compatible';",
        "import { generateText } from 'ai';",
        '',
        'const cortex = createOpenAICompatible({',
        "  name: 'cortex',",
        `  baseURL: ${q(`${url}/v1`)},`,
        `  apiKey: ${q(apiKey)},`,
        '  includeUsage: true,',
        '  supportsStructuredOutputs: true,',
        '});',
        `const { text } = await generateText({ model: cortex(${q(model)}), prompt: 'Hello' });`,
      ]),
    ],
    notes: [
      'Without includeUsage a stream tells no tokens; without supportsStructuredOutputs no schema is sent.',
      '@ai-sdk/openai (Responses, or .chat()) and @ai-sdk/anthropic take the same baseURL, with /v1.',
    ],
  },
  js('langchain', 'LangChain', 'OpenAI or Anthropic', 'a program', ({ url, model, apiKey }) => [
    "import { ChatAnthropic } from '@langchain/anthropic';",
    "import { ChatOpenAI } from '@langchain/openai';",
    '',
    'const openai = new ChatOpenAI({',
    `  model: ${q(model)},`,
    `  apiKey: ${q(apiKey)},`,
    `  configuration: { baseURL: ${q(`${url}/v1`)} },`,
    '});',
    'const anthropic = new ChatAnthropic({',
    `  model: ${q(model)},`,
    `  apiKey: ${q(apiKey)},`,
    `  anthropicApiUrl: ${q(url)},`,
    '});',
  ]),
];
