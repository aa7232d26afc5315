/**
 * Clients written in Python against the whole stack: a script for each in packages/e2e/python, run by the first
 * interpreter of CORTEX_TEST_PYTHON that has its packages (a list, as PATH is one; aider wants older packages
 * than the others, so an environment of its own). Needs no network.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { recipes } from 'cortex-cli/clients/recipes';
import { writeTinyEncoder } from 'neuron/engine/tiny-encoder.test.kit';
import { type ScriptedStack, startScriptedStack } from './agents/scripted-stack.test.kit.ts';
import { type Stack, startStack, tinyFile } from './stack.ts';

const interpreters = (process.env.CORTEX_TEST_PYTHON ?? '').split(delimiter).filter((path) => path !== '');
const scripts = fileURLToPath(new URL('../python/', import.meta.url));
const scriptMsMax = 170_000;

interface PythonClient {
  readonly script: string;
  /** As they are imported. */
  readonly modules: readonly string[];
  /** As pip installs them. */
  readonly packages: string;
  /** Its lines in docs/clients.md, which are run too. */
  readonly recipe?: string;
}

const clients: readonly PythonClient[] = [
  {
    script: 'openai_client',
    modules: ['openai'],
    packages: 'openai',
    recipe: 'openai-python',
  },
  {
    script: 'anthropic_client',
    modules: ['anthropic'],
    packages: 'anthropic',
    recipe: 'anthropic-python',
  },
  {
    script: 'ollama_client',
    modules: ['ollama'],
    packages: 'ollama',
  },
  {
    script: 'langchain_client',
    modules: ['langchain_openai', 'langchain_anthropic'],
    packages: 'langchain-openai langchain-anthropic',
    recipe: 'langchain-python',
  },
  {
    script: 'litellm_client',
    modules: ['litellm'],
    packages: 'litellm',
    recipe: 'litellm',
  },
  {
    script: 'pydantic_ai_client',
    modules: ['pydantic_ai'],
    packages: "'pydantic-ai-slim[openai,anthropic]'",
    recipe: 'pydantic-ai',
  },
  {
    script: 'openai_agents_client',
    modules: ['agents'],
    packages: 'openai-agents',
    recipe: 'openai-agents',
  },
  {
    script: 'llm_client',
    modules: ['llm'],
    packages: 'llm',
  },
  {
    script: 'aider_client',
    modules: ['aider'],
    packages: 'aider-chat',
  },
];

let folder: string;
let [stack, loading]: Stack[] = [];
let scripted: ScriptedStack;

before(async () => {
  if (interpreters.length === 0) return;
  folder = mkdtempSync(join(tmpdir(), 'cortex-python-'));
  writeTinyEncoder(join(folder, 'mean.gguf'), { pooling: 'mean' });
  stack = await startStack({
    transport: 'thread',
    dirs: [folder, join(tinyFile, '..')],
    preload: ['mean', 'cortex-tiny'],
  });
  const slow = join(folder, 'slow');
  mkdirSync(slow);
  // a model for each script that waits for one
  for (const name of ['slow-openai', 'slow-anthropic']) symlinkSync(tinyFile, join(slow, `${name}.gguf`));
  // a load that is slower than the gateway waits for: the first request is told when to come again
  loading = await startStack({
    transport: 'thread',
    dirs: [slow],
    preload: [],
    fault: 'slow_load:ms=4000',
    gateway: { cold_load_wait_secs: 1 },
    entitlements: { keys: [{ key: 'spent', account_id: 'spent', hard_cap: 1 }] },
  });
  scripted = await startScriptedStack({ template: 'qwen3', script });
});
after(async () => {
  await stack?.close();
  await loading?.close();
  await scripted?.close();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe('clients written in Python', { concurrency: 3 }, () => {
  for (const { script: name, modules, packages, recipe } of clients) {
    const python = interpreters.find((path) => hasModules(path, modules)) ?? '';
    const skip = python === '' && `set CORTEX_TEST_PYTHON to a python with ${packages} (pip install)`;
    test(`${name}.py: every case`, { skip }, () => runPython(python, [join(scripts, `${name}.py`)]));
    if (recipe === undefined) continue;
    test(`${recipe}: the lines of docs/clients.md`, { skip }, () =>
      runPython(python, ['-c', linesOf(recipe)]),
    );
  }
});

/** Thinks; calls the first tool that it has, once; edits hello.py where it is asked to in one of aider's formats. */
function script(prompt: string): string {
  if (prompt.includes('hello.py')) {
    return prompt.includes('SEARCH/REPLACE')
      ? 'hello.py\n```python\n<<<<<<< SEARCH\nprint("hello")\n=======\nprint("goodbye")\n>>>>>>> REPLACE\n```\n'
      : 'hello.py\n```\nprint("goodbye")\n```\n';
  }
  const results = prompt.split('<tool_response>').length - 1;
  const thought = `<think>\nThis is step ${results}.\n</think>\n\n`;
  const tool = /"type": ?"function", ?"function": ?\{"name": ?"(\w+)"/.exec(prompt)?.[1];
  if (tool === undefined || results > 0) return `${thought}It is 21 degrees in Paris.`;
  const call = JSON.stringify({ name: tool, arguments: { location: 'Paris' } });
  return `${thought}Let me see.\n<tool_call>\n${call}\n</tool_call>`;
}

function hasModules(python: string, modules: readonly string[]): boolean {
  const code = `import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ${JSON.stringify(modules)})))`;
  return spawnSync(python, ['-c', code]).status === 0;
}

function linesOf(recipe: string): string {
  const input = {
    url: stack?.gateway.url ?? '',
    model: 'cortex-tiny',
    context: 2048,
    output: 2048,
    apiKey: 'none',
  };
  const [snippet] = recipes.find(({ name }) => name === recipe)?.snippets(input) ?? [];
  assert.equal(snippet?.language, 'python');
  return snippet.text;
}

/** Rejects with all that it wrote unless it ends with 0. */
async function runPython(python: string, args: readonly string[]): Promise<void> {
  const env = {
    PATH: process.env.PATH,
    HOME: folder,
    // nothing is written beside the scripts, nothing asked of the network
    PYTHONDONTWRITEBYTECODE: '1',
    LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    CORTEX_URL: stack?.gateway.url,
    CORTEX_LOADING_URL: loading?.gateway.url,
    CORTEX_SCRIPTED_URL: scripted.url,
  };
  const child = spawn(python, args, { cwd: folder, env, timeout: scriptMsMax });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  assert.equal(code, 0, output);
}
