import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { CliProcess, runCli } from './spawn-cli.test.kit.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-main-'));
after(() => rmSync(dir, { recursive: true }));

describe('usage errors are one line on stderr and exit code 2', () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['up', '--prot', '1'], /unknown option '--prot' \(Did you mean --port\?\); see "cortex up --help"/],
    [['stauts'], /unknown command 'stauts' \(Did you mean status\?\); see "cortex --help"/],
    [['up', '--port', '99999'], /'99999' is invalid.*0 to 65535/],
    [['up', '--device-worker', 'gpu'], /Allowed choices are auto, process, thread/],
    [['run'], /missing required argument 'model'; see "cortex run --help"/],
    [['run', 'm', 'hi', '--temperature', 'warm'], /'warm' is invalid/],
    [['run', 'm', '', '--endpoint', 'http://127.0.0.1:1'], /the prompt is empty/],
    [['status', '--endpoint', 'nonsense'], /"nonsense" is no endpoint; give one like/],
    [['serve'], /serve needs its configuration/],
    [['config', 'check'], /name the file to check/],
    [['config', 'check', 'whatever.toml'], /add --kind/],
    [['status', 'extra'], /too many arguments/],
  ];
  for (const [args, expected] of cases) {
    test(`cortex ${args.join(' ')}`, async () => {
      const { code, stdout, stderr } = await runCli('cortex', args, { cwd: dir });
      assert.match(stderr, expected);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
      assert.equal(stdout, '');
      assert.equal(code, 2);
    });
  }
  test('neuron --prot', async () => {
    const { code, stderr } = await runCli('neuron', ['--prot']);
    assert.match(
      stderr,
      /^neuron: unknown option '--prot' \(Did you mean --port\?\); see "neuron --help"\n$/,
    );
    assert.equal(code, 2);
  });
});

describe('failures are one line on stderr and exit code 1', () => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [
      ['models', '--endpoint', 'http://127.0.0.1:1'],
      /no gateway is running at http:\/\/127\.0\.0\.1:1; start one with "cortex up"/,
    ],
    [
      ['run', 'm', 'hi', '--endpoint', 'http://127.0.0.1:1/v1'],
      /no gateway is running at http:\/\/127\.0\.0\.1:1;/,
    ],
    [['up', '--model', 'nowhere.gguf'], /nowhere\.gguf does not exist/],
    [['up', '--config', 'nowhere.toml'], /nowhere\.toml: no such file/],
    [['serve', '--config', 'nowhere.toml'], /nowhere\.toml: no such file/],
  ];
  for (const [args, expected] of cases) {
    test(`cortex ${args.join(' ')}`, async () => {
      const { code, stdout, stderr } = await runCli('cortex', args, { cwd: dir });
      assert.match(stderr, expected);
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
      assert.equal(stdout, '');
      assert.equal(code, 1);
    });
  }
});

test('help and version are on stdout with exit code 0', async () => {
  for (const args of [
    ['--help'],
    ['help', 'up'],
    ['up', '--help'],
    ['--version'],
    ['version'],
    ['version', '--json'],
  ]) {
    const { code, stdout, stderr } = await runCli('cortex', args);
    assert.equal(code, 0, args.join(' '));
    assert.notEqual(stdout, '');
    assert.equal(stderr, '');
  }
  const { stdout } = await runCli('cortex', ['version', '--json']);
  assert.equal(JSON.parse(stdout).node, process.version);
  assert.match((await runCli('neuron', ['--version'])).stdout, /^neuron \d+\.\d+\.\d+/);
});

test('config check prints every fault of every file and exits with 1', async () => {
  writeFileSync(join(dir, 'cortex.toml'), '[gateway]\nlisten = "nonsense"\npoll_interval_sec = 1\n');
  writeFileSync(join(dir, 'neuron.toml'), 'port = 1\n');
  const here = await runCli('cortex', ['config', 'check'], { cwd: dir });
  assert.equal(here.code, 1);
  assert.match(here.stdout, /cortex\.toml:2.*gateway\.listen/);
  assert.match(here.stdout, /cortex\.toml:3.*did you mean "poll_interval_secs"/);
  assert.match(here.stdout, /neuron\.toml: ok \(neuron\)/);
  assert.equal(here.stderr, '');
  const json = await runCli('cortex', ['config', 'check', '--json', '--kind', 'neuron', 'neuron.toml'], {
    cwd: dir,
  });
  assert.equal(json.code, 0);
  assert.deepEqual(JSON.parse(json.stdout), {
    ok: true,
    files: [{ file: 'neuron.toml', kind: 'neuron', faults: [] }],
  });
});

describe('run against a gateway', () => {
  test('prints the answer as it comes, and sends what it was given', async () => {
    let body = '';
    const gateway = await serve(async (request, response) => {
      for await (const chunk of request) body += chunk;
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': keep-alive\n\n');
      response.write(
        chunk({ delta: { role: 'assistant', content: '' } }) + chunk({ delta: { content: 'Par' } }),
      );
      response.end(
        `${chunk({ delta: { content: 'is' } })}${chunk({ delta: {}, finish_reason: 'stop' })}data: [DONE]\n\n`,
      );
    });
    const args = ['run', 'm', '--system', 'short', '--max-tokens', '5', '--temperature', '0'];
    const env = { CORTEX_ENDPOINT: gateway, CORTEX_API_KEY: 'k' };
    const { code, stdout, stderr } = await runCli('cortex', args, { env, input: 'capital?' });
    assert.deepEqual([code, stdout, stderr], [0, 'Paris\n', '']);
    assert.deepEqual(JSON.parse(body), {
      model: 'm',
      messages: [
        { role: 'system', content: 'short' },
        { role: 'user', content: 'capital?' },
      ],
      max_tokens: 5,
      temperature: 0,
      stream: true,
    });
  });

  test('a refusal is its message and exit code 1', async () => {
    const gateway = await serve((_request, response) => {
      response
        .writeHead(404)
        .end('{"error":{"message":"model \\"m\\" is not known","code":"model_not_found"}}');
    });
    const { code, stderr } = await runCli('cortex', ['run', 'm', 'hi', '-e', gateway]);
    assert.deepEqual([code, stderr], [1, 'cortex: model "m" is not known\n']);
  });

  test('an error in the middle of the stream and a stream without an end are exit code 1', async () => {
    const endings = [`data: {"error":{"message":"the owner died"}}\n\n`, ''];
    for (const ending of endings) {
      const gateway = await serve((_request, response) => {
        response.writeHead(200).end(chunk({ delta: { content: 'Par' } }) + ending);
      });
      const { code, stdout, stderr } = await runCli('cortex', ['run', 'm', 'hi', '-e', gateway]);
      assert.equal(stdout, 'Par\n');
      assert.match(stderr, ending === '' ? /cut off/ : /the owner died/);
      assert.equal(code, 1);
    }
  });

  test('Ctrl-C ends the request and exits with 130', async () => {
    let gone: () => void;
    const clientLeft = new Promise<void>((resolve) => {
      gone = resolve;
    });
    const gateway = await serve((_request, response) => {
      response.once('close', () => gone());
      response.writeHead(200).write(chunk({ delta: { content: 'endless' } }));
    });
    const cli = new CliProcess('cortex', ['run', 'm', 'hi', '-e', gateway]);
    await cli.output(/endless/);
    cli.child.kill('SIGINT');
    await clientLeft;
    assert.deepEqual(await cli.finished, { code: 130, signal: null, stdout: 'endless\n', stderr: '' });
  });
});

function chunk(choice: object): string {
  return `data: ${JSON.stringify({ choices: [{ index: 0, ...choice }] })}\n\n`;
}

async function serve(
  handler: (request: IncomingMessage, response: ServerResponse) => unknown,
): Promise<string> {
  const server = createServer(handler);
  after(() => {
    server.closeAllConnections();
    server.close();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
