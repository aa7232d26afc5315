/** Recorded sessions of real agents, replayed without the agents: on every template that the fixtures hold. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type AgentBody, type AgentFixture, readFixtures } from './agent-fixtures.test.kit.ts';
import { type ScriptedStack, startScriptedStack } from './scripted-stack.test.kit.ts';
import { checkAnswer } from './stream-grammar.test.kit.ts';

const templates = readdirSync(
  fileURLToPath(new URL('../../../neuron/src/chat/fixtures/templates/', import.meta.url)),
)
  .map((name) => name.replace('.jinja', ''))
  .sort();
const fixtures = readFixtures();
/** What the model itself cannot run, and the gateway does not. */
const dropped = new Set(['web_search']);

test('the fixtures hold a session of each agent', () => {
  assert.deepEqual(
    fixtures.map(({ agent }) => agent),
    ['claude', 'codex', 'opencode'],
  );
});

for (const template of templates) {
  describe(`on ${template}`, () => {
    let stack: ScriptedStack;
    before(async () => {
      stack = await startScriptedStack({ template, script: () => 'Done.' });
    });
    after(() => stack?.close());

    for (const fixture of fixtures) {
      test(`${fixture.agent}: every turn is answered, with its question, tools and results in the prompt`, async () => {
        for (const { path, headers, body } of fixture.requests) {
          const answer = await fetch(`${stack.url}${path}`, {
            method: 'POST',
            headers: { ...headers, 'accept-encoding': 'identity' },
            body: JSON.stringify(body),
          });
          const bytes = Buffer.from(await answer.arrayBuffer());
          assert.equal(answer.status, 200, bytes.toString());
          checkAnswer({ path, answer: bytes, answerType: answer.headers.get('content-type') ?? '' });
          const prompt = stack.prompts.at(-1) ?? '';
          assert.ok(prompt.includes('What does note.txt say?'));
          for (const name of toolNames(body)) assert.ok(prompt.includes(name), `no ${name} in the prompt`);
          if (body === fixture.requests.at(-1)?.body) assert.ok(prompt.includes('the password is heron-42'));
        }
      });
    }
  });
}

describe('what is counted is what is then used', () => {
  let stack: ScriptedStack;
  before(async () => {
    stack = await startScriptedStack({ template: 'qwen3', script: () => 'Done.' });
  });
  after(() => stack?.close());

  test('claude: /v1/messages/count_tokens', async () => {
    for (const { path, headers, body } of requestsOf('claude')) {
      const { max_tokens: _, stream: __, ...counted } = body;
      const [count, whole] = await Promise.all([
        postJson('/v1/messages/count_tokens', counted, headers),
        postJson(path, { ...body, stream: false }, headers),
      ]);
      const usage = whole.usage as { input_tokens: number; cache_read_input_tokens: number };
      assert.equal(count.input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
    }
  });

  test('codex: /v1/responses/input_tokens', async () => {
    for (const { path, headers, body } of requestsOf('codex')) {
      const { model, input, tools, tool_choice, parallel_tool_calls, reasoning } = body;
      const counted = { model, input, tools, tool_choice, parallel_tool_calls, reasoning };
      const [count, whole] = await Promise.all([
        postJson('/v1/responses/input_tokens', counted, headers),
        postJson(path, { ...body, stream: false }, headers),
      ]);
      assert.equal(count.input_tokens, (whole.usage as { input_tokens: number }).input_tokens);
    }
  });

  async function postJson(
    path: string,
    body: object,
    headers: Readonly<Record<string, string>>,
  ): Promise<Record<string, unknown>> {
    const answer = await fetch(`${stack.url}${path}`, {
      method: 'POST',
      headers: { ...headers, 'accept-encoding': 'identity' },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    assert.equal(answer.status, 200, text);
    return JSON.parse(text) as Record<string, unknown>;
  }
});

function requestsOf(agent: string): AgentFixture['requests'] {
  return fixtures.find((fixture) => fixture.agent === agent)?.requests ?? [];
}

function toolNames({ tools = [] }: AgentBody): readonly string[] {
  return tools
    .map((tool) => {
      const {
        name,
        type,
        function: fn,
      } = tool as { name?: string; type?: string; function?: { name: string } };
      return name ?? fn?.name ?? type ?? '';
    })
    .filter((name) => !dropped.has(name));
}
