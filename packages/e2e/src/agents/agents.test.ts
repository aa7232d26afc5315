/**
 * The real agents, started by `cortex launch`, against the real gateway and neuron with a scripted model: each
 * reads a file, writes another one and answers. Runs where CORTEX_TEST_AGENTS names a folder with the agents in
 * node_modules/.bin (npm install @anthropic-ai/claude-code @openai/codex opencode-ai); needs no network.
 * With CORTEX_RECORD_AGENTS=1 the requests become the fixtures that agent-replay.test.ts reads.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { recordFixture } from './agent-fixtures.test.kit.ts';
import { type ScriptedStack, startScriptedStack } from './scripted-stack.test.kit.ts';
import { checkAnswer } from './stream-grammar.test.kit.ts';

interface AgentSession {
  readonly agent: 'claude' | 'codex' | 'opencode';
  /** Which of the dialects the session speaks. */
  readonly dialect: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The calls that the model makes, one a turn, before it answers. */
  readonly calls: (project: string) => readonly ToolCall[];
}

interface ToolCall {
  readonly name: string;
  readonly arguments: object;
}

const question = 'What does note.txt say? Write it to answer.txt.';
const secret = 'heron-42';
const answer = `The note says ${secret}; it is in answer.txt now.`;
const folder = process.env.CORTEX_TEST_AGENTS ?? '';
const bin = join(folder, 'node_modules', '.bin');
const cortex = fileURLToPath(new URL('../../../cortex-cli/dist/cortex-main.js', import.meta.url));
const key = 'sk-of-the-gateway';
const sessionMsMax = 120_000;

const opencodeCalls = (project: string): readonly ToolCall[] => [
  { name: 'read', arguments: { filePath: join(project, 'note.txt') } },
  { name: 'write', arguments: { filePath: join(project, 'answer.txt'), content: secret } },
];

const sessions: readonly AgentSession[] = [
  {
    agent: 'claude',
    dialect: '/v1/messages?beta=true',
    args: ['-p', '--allowedTools', 'Read', 'Write', '--', question],
    calls: (project) => [
      { name: 'Read', arguments: { file_path: join(project, 'note.txt') } },
      { name: 'Write', arguments: { file_path: join(project, 'answer.txt'), content: secret } },
    ],
  },
  {
    agent: 'codex',
    dialect: '/v1/responses',
    // --strict-config: a key that Codex does not know is an error
    args: ['exec', '--strict-config', '--skip-git-repo-check', '--sandbox', 'danger-full-access', question],
    calls: () => [
      { name: 'exec_command', arguments: { cmd: 'cat note.txt' } },
      // a tool in a namespace: its name has to come back in two parts
      { name: 'multi_agent_v1__close_agent', arguments: { target: 'nobody' } },
      { name: 'exec_command', arguments: { cmd: `printf ${secret} > answer.txt` } },
    ],
  },
  {
    agent: 'opencode',
    dialect: '/v1/chat/completions',
    args: ['run', question],
    calls: opencodeCalls,
  },
];

for (const session of sessions) {
  const { agent, dialect } = session;
  describe(`${agent} over ${dialect}`, { skip: skipOf(agent) }, () => {
    const dir = mkdtempSync(join(tmpdir(), 'cortex-agent-'));
    const [home, project] = [join(dir, 'home'), join(dir, 'project')];
    let stack: ScriptedStack;
    let ended: Ended;

    before(async () => {
      for (const each of [home, project]) mkdirSync(each);
      writeFileSync(join(project, 'note.txt'), `the password is ${secret}\n`);
      stack = await startScriptedStack({ template: 'qwen3', script: scriptOf(session.calls(project)) });
      ended = await runAgent(session, stack.url, { home, project });
      if (process.env.CORTEX_RECORD_AGENTS !== undefined)
        recordFixture(agent, stack.calls, { home, project });
    });
    after(async () => {
      await stack?.close();
      rmSync(dir, { recursive: true, force: true });
    });

    test('it ends well and prints the answer', () => {
      assert.equal(ended.code, 0, ended.output);
      assert.ok(ended.stdout.includes(answer), ended.output);
    });

    test('its tools ran, and their results came back to the model', () => {
      assert.equal(readFileSync(join(project, 'answer.txt'), 'utf8').trim(), secret);
      const turns = agentTurns(stack.prompts);
      const calls = session.calls(project);
      assert.equal(turns.length, calls.length + 1, ended.output);
      assert.equal(countResults(turns.at(-1) ?? ''), calls.length);
      // what it thought goes back with its calls
      for (const step of calls.keys())
        assert.ok(turns.at(-1)?.includes(`This is step ${step}.`), `step ${step}`);
      assert.doesNotMatch(turns.at(-1) ?? '', /unsupported call/);
      assert.match(turns[1] ?? '', new RegExp(`<tool_response>[^]*${secret}[^]*</tool_response>`));
    });

    test('each of its turns begins with the whole one before it', () => {
      const turns = agentTurns(stack.prompts);
      assert.ok(turns.length > 1);
      for (const [at, turn] of turns.entries()) {
        const before = turns[at - 1];
        if (before === undefined) continue;
        const shared = sharedLength(before, turn);
        assert.ok(shared >= before.length * 0.99, `turn ${at + 1} shares ${shared} of ${before.length}`);
      }
    });

    test('every request was answered 200, every stream by the grammar of its dialect', async () => {
      const posts = stack.calls.filter(({ method }) => method === 'POST');
      assert.ok(posts.some(({ path }) => path === dialect));
      for (const call of posts) {
        assert.equal(call.status, 200, call.answer.toString());
        assert.equal(call.headers.authorization, `Bearer ${key}`);
        checkAnswer(call);
      }
      const errors = (await stack.metrics()).match(/^cortex_stream_protocol_errors_total\{.*/gm) ?? [];
      assert.deepEqual(errors, []);
    });
  });
}

describe('a prompt longer than the context', () => {
  for (const [agent, said] of [
    ['claude', /Prompt is too long .*~\d+ tokens \(limit 6000\)/],
    ['codex', /ran out of room in the model's context window/],
  ] as const) {
    const session = sessions.find((each) => each.agent === agent);
    test(`${agent} says what it is, at once`, { skip: skipOf(agent) }, async () => {
      assert.ok(session !== undefined);
      const dir = mkdtempSync(join(tmpdir(), 'cortex-agent-'));
      const places = { home: dir, project: dir };
      const stack = await startScriptedStack({ template: 'qwen3', context: 6000, script: () => 'never' });
      try {
        const { code, output } = await runAgent(session, stack.url, places);
        assert.notEqual(code, 0);
        assert.match(output, said);
        assert.deepEqual(
          stack.calls.filter(({ method }) => method === 'POST').map(({ status }) => status),
          [400],
        );
      } finally {
        await stack.close();
        rmSync(dir, { recursive: true, force: true });
      }
    });
  }
});

function skipOf(agent: string): string | false {
  const missing = !existsSync(join(bin, agent));
  return missing && `set CORTEX_TEST_AGENTS to a folder with node_modules/.bin/${agent}`;
}

/** A thought and a call for each result that is not there yet, then the answer. */
function scriptOf(calls: readonly ToolCall[]): (prompt: string) => string {
  return (prompt) => {
    if (!prompt.includes('"type": "function"') && !prompt.includes('"type":"function"')) return 'A note';
    const step = countResults(prompt);
    const next = calls[step];
    const thought = `<think>\nThis is step ${step}.\n</think>\n\n`;
    if (next === undefined) return `${thought}${answer}`;
    return `${thought}Let me see.\n<tool_call>\n${JSON.stringify(next)}\n</tool_call>`;
  };
}

function countResults(prompt: string): number {
  return prompt.split('<tool_response>').length - 1;
}

/** Without what is asked beside the conversation: titles. */
function agentTurns(prompts: readonly string[]): readonly string[] {
  return prompts.filter((prompt) => prompt.includes('<tools>'));
}

function sharedLength(a: string, b: string): number {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at++;
  return at;
}

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly output: string;
}

function runAgent(
  { agent, args, env }: AgentSession,
  endpoint: string,
  { home, project }: { readonly home: string; readonly project: string },
): Promise<Ended> {
  const launch = [
    'launch',
    '--endpoint',
    endpoint,
    '--model',
    'cortex-tiny',
    '--api-key',
    key,
    agent,
    ...args,
  ];
  const child = spawn(process.execPath, [cortex, ...launch], {
    cwd: project,
    env: { PATH: `${bin}${delimiter}${process.env.PATH}`, HOME: home, TERM: 'dumb', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: sessionMsMax,
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, output: `exit ${code}\n${stdout}\n${stderr}` }));
  });
}
