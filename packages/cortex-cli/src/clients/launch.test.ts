import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CliProcess, runCli } from '../spawn-cli.test.kit.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-launch-'));
const [bin, home] = [join(dir, 'bin'), join(dir, 'home')];
const nodeOnly = dirname(process.execPath);
let gateway: Server;
let url: string;
let models: object[] = [];

before(async () => {
  mkdirSync(bin);
  mkdirSync(home);
  gateway = createServer(({ url: path = '' }, response) => {
    if (path === '/v1/models') return void response.end(JSON.stringify({ object: 'list', data: models }));
    if (path === '/v1/models/claude-any') {
      return void response.end(JSON.stringify({ id: 'claude-any', limit: { context: 4096 }, alias_of: 'm' }));
    }
    response.statusCode = 404;
    response.end(JSON.stringify({ error: { message: 'no such model' } }));
  });
  await new Promise<void>((resolve) => gateway.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`;
  const shown = '{ args: process.argv.slice(2), env: process.env }';
  program('claude', `console.log(JSON.stringify(${shown}));`);
  program('codex', `console.log(JSON.stringify(${shown})); process.exitCode = 7;`);
  program(
    'opencode',
    `process.on('SIGTERM', () => { console.log('told to stop'); process.exit(3); });
     setInterval(() => {}, 1000); console.log(JSON.stringify(${shown}));`,
  );
  models = [
    { id: 'embedder', loaded: true, capabilities: ['embeddings'], limit: { context: 99_999 } },
    { id: 'large', loaded: true, capabilities: ['text'], limit: { context: 65_536, output: 65_536 } },
    { id: 'other name', loaded: true, capabilities: ['text'], limit: { context: 90_000 }, alias_of: 'large' },
    { id: 'not/loaded', loaded: false, capabilities: ['text'], limit: { context: 131_072, output: 4096 } },
    { id: 'small', loaded: true, capabilities: ['text'], limit: { context: 8192, output: 8192 } },
  ];
});
after(() => {
  gateway.close();
  rmSync(dir, { recursive: true, force: true });
});

function program(name: string, source: string): void {
  const file = join(bin, name);
  writeFileSync(file, `#!${process.execPath}\n${source}\n`);
  chmodSync(file, 0o755);
}

function options(more: Readonly<Record<string, string>> = {}) {
  return { env: { PATH: `${bin}${delimiter}${nodeOnly}`, HOME: home, ...more }, cwd: home };
}

interface Seen {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

async function launch(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const ended = await runCli('cortex', ['launch', '-e', url, ...args], options(env));
  return { ...ended, seen: (ended.stdout === '' ? null : JSON.parse(ended.stdout)) as Seen };
}

describe('cortex launch', () => {
  test('claude gets the gateway, the model, its limits and no key of somebody else', async () => {
    const { code, seen, stderr } = await launch(['claude', '-p', '--model', 'x', '--', 'do it'], {
      ANTHROPIC_API_KEY: 'sk-ant-of-the-person',
    });
    assert.equal(code, 0, stderr);
    assert.deepEqual(seen.args, ['-p', '--model', 'x', '--', 'do it']);
    assert.equal(seen.env.ANTHROPIC_BASE_URL, url);
    assert.equal(seen.env.ANTHROPIC_MODEL, 'large');
    assert.equal(seen.env.ANTHROPIC_DEFAULT_HAIKU_MODEL, 'large');
    assert.equal(seen.env.CLAUDE_CODE_MAX_CONTEXT_TOKENS, '65536');
    assert.equal(seen.env.CLAUDE_CODE_MAX_OUTPUT_TOKENS, '8192');
    assert.equal(seen.env.CLAUDE_CODE_ATTRIBUTION_HEADER, '0');
    assert.equal(seen.env.ANTHROPIC_API_KEY, undefined);
    assert.equal(seen.env.ANTHROPIC_AUTH_TOKEN, 'none');
  });

  test("codex gets its configuration before the person's arguments, and its exit code is passed on", async () => {
    const { code, seen } = await launch([
      '--model',
      'not/loaded',
      '--api-key',
      'k"ey',
      'codex',
      'exec',
      'hi',
    ]);
    assert.equal(code, 7);
    assert.deepEqual(seen.args.slice(-2), ['exec', 'hi']);
    assert.ok(seen.args.includes('model="not/loaded"'));
    assert.ok(seen.args.includes('model_context_window=131072'));
    assert.ok(seen.args.includes(`model_providers.cortex.base_url="${url}/v1"`));
    assert.equal(seen.env.CORTEX_API_KEY, 'k"ey');
    assert.ok(
      !seen.args.some((arg) => arg.includes('k"ey')),
      'a key on the command line is seen by everybody',
    );
  });

  test('a signal reaches the client, and its exit code comes back', async () => {
    const cli = new CliProcess('cortex', ['launch', '-e', url, 'opencode'], options());
    const [text] = await cli.output(/^\{.*\}$/m);
    const config = JSON.parse((JSON.parse(text) as Seen).env.OPENCODE_CONFIG_CONTENT ?? '');
    assert.equal(config.model, 'cortex/large');
    assert.deepEqual(config.provider.cortex.models.large.limit, { context: 65_536, output: 8192 });
    cli.child.kill('SIGTERM');
    const { code, stdout } = await cli.finished;
    assert.match(stdout, /told to stop/);
    assert.equal(code, 3);
  });

  test('a name that only an alias with a * knows is taken, and a context that is too small is told', async () => {
    const { code, seen, stderr } = await launch(['--model', 'claude-any', 'claude']);
    assert.equal(code, 0);
    assert.equal(seen.env.ANTHROPIC_MODEL, 'claude-any');
    assert.match(stderr, /"claude-any" has a context of 4096 tokens, and claude alone takes about 19000/);
    assert.equal((await launch(['claude'])).stderr, '');
  });

  test("nothing is written into the person's folder", () => {
    assert.deepEqual(readdirSync(home), []);
  });

  test('a client that is not there: one line with the command that installs it', async () => {
    const { code, stderr } = await runCli(
      'cortex',
      ['launch', '-e', url, 'claude'],
      options({ PATH: nodeOnly }),
    );
    assert.equal(
      stderr,
      'cortex: claude is not on PATH; install it with "npm install -g @anthropic-ai/claude-code"\n',
    );
    assert.equal(code, 1);
  });

  test('an unknown client, an unknown model, no gateway: each is told', async () => {
    const unknown = await launch(['vim']);
    assert.match(unknown.stderr, /cannot launch "vim"; it can launch claude, codex, opencode/);
    assert.equal(unknown.code, 2);
    const model = await launch(['--model', 'nope', 'claude']);
    assert.match(model.stderr, /the gateway knows no model "nope"; it has embedder, large/);
    const nowhere = await runCli('cortex', ['launch', '-e', 'http://127.0.0.1:1', 'claude'], options());
    assert.match(nowhere.stderr, /no gateway is running/);
  });
});

describe('cortex clients', () => {
  test('all of them, with this address and the model with the most context; never the key', async () => {
    const { code, stdout } = await runCli(
      'cortex',
      ['clients', '-e', `${url}/v1`, '--api-key', 'sk-1'],
      options(),
    );
    assert.equal(code, 0);
    for (const title of ['Claude Code', 'Codex', 'opencode', 'Zed', 'LangChain', 'curl']) {
      assert.ok(stdout.includes(title), title);
    }
    assert.ok(stdout.includes(`export ANTHROPIC_BASE_URL=${url}\n`));
    assert.ok(stdout.includes('large'));
    assert.ok(!stdout.includes('sk-1'));
  });

  test('one of them, as JSON', async () => {
    const { stdout } = await runCli('cortex', ['clients', 'zed', '--json', '-e', url], options());
    const { clients, model } = JSON.parse(stdout);
    assert.equal(model, 'large');
    assert.equal(clients.length, 1);
    const settings = JSON.parse(clients[0].snippets[0].text);
    assert.equal(settings.language_models.openai_compatible.cortex.available_models[0].max_tokens, 65_536);
  });

  test('one that nobody knows', async () => {
    const { code, stderr } = await runCli('cortex', ['clients', 'emacs', '-e', url], options());
    assert.match(stderr, /there is no recipe for "emacs"; there is one for claude, codex/);
    assert.equal(code, 2);
  });
});
