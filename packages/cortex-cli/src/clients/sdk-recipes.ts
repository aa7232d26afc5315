/** Libraries: the lines that make a client of the gateway. */
import type { ClientRecipe, RecipeInput, Snippet } from './client-recipe.ts';

const q = (text: string): string => JSON.stringify(text);

interface SdkRecipe extends Pick<ClientRecipe, 'name' | 'title' | 'speaks' | 'tried'> {
  readonly notes?: readonly string[];
  readonly lines: Lines;
}

function js({ lines, notes = [], ...recipe }: SdkRecipe): ClientRecipe {
  return { ...recipe, notes, snippets: (input) => [snippet('a program', 'js', lines(input))] };
}

function python({ lines, notes = [], ...recipe }: SdkRecipe): ClientRecipe {
  return { ...recipe, notes, snippets: (input) => [snippet('a program', 'python', lines(input))] };
}

type Lines = (input: RecipeInput) => readonly string[];

function snippet(into: string, language: Snippet['language'], lines: readonly string[]): Snippet {
  return { into, language, text: lines.join('\n') };
}

const javascript: readonly ClientRecipe[] = [
  js({
    name: 'openai-js',
    title: 'OpenAI SDK for JavaScript',
    speaks: 'OpenAI',
    tried: 'tried: 6.49, in the test suite',
    lines: ({ url, model, apiKey }) => [
      "import OpenAI from 'openai';",
      '',
      `const client = new OpenAI({ baseURL: ${q(`${url}/v1`)}, apiKey: ${q(apiKey)} });`,
      'const answer = await client.chat.completions.create({',
      `  model: ${q(model)},`,
      "  messages: [{ role: 'user', content: 'Hello' }],",
      '});',
    ],
  }),
  js({
    name: 'anthropic-js',
    title: 'Anthropic SDK for JavaScript',
    speaks: 'Anthropic Messages',
    tried: 'tried: 1.12, in the test suite',
    lines: ({ url, model, apiKey }) => [
      "import Anthropic from '@anthropic-ai/sdk';",
      '',
      `const client = new Anthropic({ baseURL: ${q(url)}, apiKey: ${q(apiKey)} });`,
      'const message = await client.messages.create({',
      `  model: ${q(model)},`,
      '  max_tokens: 1024,',
      "  messages: [{ role: 'user', content: 'Hello' }],",
      '});',
    ],
  }),
  js({
    name: 'ai-sdk',
    title: 'Vercel AI SDK',
    speaks: 'OpenAI chat completions',
    tried:
      'tried: ai 6.0.326, its openai-compatible 2.0.92, openai 3.0.141, anthropic 3.0.140, in the test suite',
    lines: ({ url, model, apiKey }) => [
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
    ],
    notes: [
      'Without includeUsage a stream tells no tokens; without supportsStructuredOutputs no schema is sent.',
      '@ai-sdk/openai (Responses, or .chat()) and @ai-sdk/anthropic take the same baseURL, with /v1.',
    ],
  }),
  js({
    name: 'langchain',
    title: 'LangChain',
    speaks: 'OpenAI or Anthropic',
    tried:
      'tried: @langchain/openai 1.5.8, @langchain/anthropic 1.5.10, @langchain/core 1.4.0, in the test suite',
    lines: ({ url, model, apiKey }) => [
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
    ],
  }),
];

const pythons: readonly ClientRecipe[] = [
  python({
    name: 'openai-python',
    title: 'OpenAI SDK for Python',
    speaks: 'OpenAI',
    tried: 'tried: 3.57.0, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'from openai import OpenAI',
      '',
      `client = OpenAI(base_url=${q(`${url}/v1`)}, api_key=${q(apiKey)})`,
      'answer = client.chat.completions.create(',
      `    model=${q(model)}, messages=[{"role": "user", "content": "Hello"}]`,
      ')',
    ],
  }),
  python({
    name: 'anthropic-python',
    title: 'Anthropic SDK for Python',
    speaks: 'Anthropic Messages',
    tried: 'tried: 2.14.0, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'from anthropic import Anthropic',
      '',
      `client = Anthropic(base_url=${q(url)}, api_key=${q(apiKey)})`,
      'message = client.messages.create(',
      `    model=${q(model)}, max_tokens=1024, messages=[{"role": "user", "content": "Hello"}]`,
      ')',
    ],
  }),
  python({
    name: 'langchain-python',
    title: 'LangChain for Python',
    speaks: 'OpenAI or Anthropic',
    tried: 'tried: langchain-openai 1.7.4, langchain-anthropic 1.7.10, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'from langchain_anthropic import ChatAnthropic',
      'from langchain_openai import ChatOpenAI',
      '',
      `openai = ChatOpenAI(model=${q(model)}, api_key=${q(apiKey)}, base_url=${q(`${url}/v1`)})`,
      `anthropic = ChatAnthropic(model=${q(model)}, api_key=${q(apiKey)}, base_url=${q(url)})`,
    ],
    notes: [
      'OpenAIEmbeddings wants check_embedding_ctx_length=False, or it sends tokens of another vocabulary.',
    ],
  }),
  python({
    name: 'litellm',
    title: 'LiteLLM',
    speaks: "OpenAI, Anthropic Messages or Ollama's API",
    tried: 'tried: 1.110.2, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'import litellm',
      '',
      'answer = litellm.completion(',
      `    model=${q(`openai/${model}`)},`,
      `    api_base=${q(`${url}/v1`)},`,
      `    api_key=${q(apiKey)},`,
      '    messages=[{"role": "user", "content": "Hello"}],',
      ')',
    ],
    notes: ['With the prefix anthropic/ or ollama_chat/ api_base has no /v1.'],
  }),
  python({
    name: 'pydantic-ai',
    title: 'Pydantic AI',
    speaks: 'OpenAI or Anthropic',
    tried: 'tried: 2.68.0, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'from pydantic_ai import Agent',
      'from pydantic_ai.models.openai import OpenAIChatModel',
      'from pydantic_ai.providers.openai import OpenAIProvider',
      '',
      `cortex = OpenAIProvider(base_url=${q(`${url}/v1`)}, api_key=${q(apiKey)})`,
      `agent = Agent(OpenAIChatModel(${q(model)}, provider=cortex))`,
      'answer = agent.run_sync("Hello").output',
    ],
    notes: ['OpenAIResponsesModel takes the same provider; AnthropicProvider takes base_url without /v1.'],
  }),
  python({
    name: 'openai-agents',
    title: 'OpenAI Agents SDK',
    speaks: 'OpenAI Responses or chat completions',
    tried: 'tried: 0.24.0, in the test suite',
    lines: ({ url, model, apiKey }) => [
      'from agents import Agent, OpenAIResponsesModel, Runner, set_tracing_disabled',
      'from openai import AsyncOpenAI',
      '',
      'set_tracing_disabled(True)',
      `client = AsyncOpenAI(base_url=${q(`${url}/v1`)}, api_key=${q(apiKey)})`,
      `agent = Agent(name="cortex", model=OpenAIResponsesModel(${q(model)}, client))`,
      'answer = Runner.run_sync(agent, "Hello").final_output',
    ],
    notes: ['Unless tracing is disabled it sends what it did to OpenAI.'],
  }),
];

export const sdkRecipes: readonly ClientRecipe[] = [...javascript, ...pythons];
