/** `cortex serve` as a process of its own over fake neurons: reload by signal, by file and by command, and kill -9. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { answerBehind, chatStream, createGate, type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { hangMs } from 'testkit/hang';
import { CliProcess, runCli } from './spawn-cli.test.kit.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-serve-'));
const neurons: FakeNeuron[] = [];
after(async () => {
  for (const neuron of neurons) await neuron.close();
  rmSync(dir, { recursive: true });
});

async function fakeNeuron(): Promise<FakeNeuron> {
  const neuron = await startFakeNeuron({ models: [{ id: 'm', status: 'loaded' }] });
  neurons.push(neuron);
  return neuron;
}

/** Writes cortex.toml with these lines under [gateway]. */
function write(
  path: string,
  port: number,
  fakes: readonly FakeNeuron[],
  lines: readonly string[] = [],
): void {
  const tables = fakes.map(({ url }, i) => `[[neurons]]\nname = "n${i}"\nendpoint = "${url}"\n`);
  const gateway = [`listen = "127.0.0.1:${port}"`, 'metrics_listen = "127.0.0.1:0"', ...lines];
  writeFileSync(path, `[gateway]\n${gateway.join('\n')}\n${tables.join('')}`);
}

function serve(path: string): CliProcess {
  const serving = new CliProcess('cortex', ['serve', '--config', path]);
  after(() => serving.child.kill('SIGKILL'));
  return serving;
}

async function urlOf(serving: CliProcess): Promise<string> {
  const [, url = ''] = await serving.output(/"url":"(http[^"]+)"/);
  return url;
}

const ask = (url: string, more: object = {}) =>
  fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...more }),
  });

describe('cortex serve', { timeout: hangMs }, () => {
  test('SIGHUP reads the files again under a running stream; a faulty one changes nothing', async () => {
    const [first, second] = [await fakeNeuron(), await fakeNeuron()];
    const path = join(dir, 'hup.toml');
    write(path, 0, [first], ['watch_config = false']);
    const serving = serve(path);
    const url = await urlOf(serving);
    const gate = createGate();
    first.onChat = answerBehind(gate);
    const running = await ask(url, { stream: true });
    write(path, 0, [first], ['watch_config = false', 'keepalive_secs = "often"', 'max_body_mbs = 3']);
    serving.child.kill('SIGHUP');
    await serving.output(/hup\.toml:6 gateway\.max_body_mbs: [^\n]*did you mean \\"max_body_mb\\"/);
    await serving.output(/hup\.toml:5 gateway\.keepalive_secs: /);
    write(path, 0, [second], ['watch_config = false', 'keepalive_secs = 7']);
    serving.child.kill('SIGHUP');
    await serving.output(/"configuration reloaded"/);
    assert.match(serving.stderr, /gateway\.keepalive_secs: 10 -> 7/);
    await second.until(() => second.counters.models > 0);
    assert.equal((await ask(url)).status, 200);
    assert.deepEqual([first.counters.chats, second.counters.chats], [1, 1]);
    gate.open();
    assert.match(await running.text(), /\[DONE\]/);
    serving.child.kill('SIGTERM');
    assert.equal((await serving.finished).code, 0);
  });

  test('a file that is saved is read by itself; cortex reload says what changed and what needs a restart', async () => {
    const neuron = await fakeNeuron();
    const path = join(dir, 'watch.toml');
    write(path, 0, [neuron]);
    const serving = serve(path);
    const url = await urlOf(serving);
    write(path, 0, [neuron], ['keepalive_secs = 3']);
    await serving.output(/"trigger":"file","changed":\["gateway\.keepalive_secs: 10 -> 3"\]/);
    write(path, 1, [neuron], ['keepalive_secs = 4', 'watch_config = false']);
    const told = await runCli('cortex', ['reload', '-e', url]);
    assert.deepEqual([told.code, told.stderr], [0, '']);
    assert.equal(
      told.stdout,
      'reloaded:\n  gateway.keepalive_secs: 3 -> 4\n  gateway.watch_config: true -> false\n' +
        'needs a restart:\n  gateway.listen: "127.0.0.1:0" -> "127.0.0.1:1"\n',
    );
    writeFileSync(path, '[gateway]\nlisten = 3\n');
    const refused = await runCli('cortex', ['reload', '-e', url]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /a fault and nothing was changed:\n.*watch\.toml:2 gateway\.listen: /);
    assert.equal((await ask(url)).status, 200);
    serving.child.kill('SIGTERM');
    await serving.finished;
  });

  test('killed with -9 in the middle of traffic and started again, it serves after its first poll', async () => {
    const neuron = await fakeNeuron();
    neuron.addModel({ id: 'cold' });
    const path = join(dir, 'kill.toml');
    const port = await freePort();
    write(path, port, [neuron]);
    const first = serve(path);
    const url = await urlOf(first);
    const answers = neuron.onChat;
    neuron.onChat = (call) => {
      call.response.writeHead(200, { 'content-type': 'text/event-stream' });
      call.response.write(`${chatStream('m', ['one']).split('\n\n')[0]}\n\n`);
    };
    const gate = createGate();
    neuron.onLoad = async () => {
      await gate.opened;
      return undefined;
    };
    const streams = await Promise.all(Array.from({ length: 5 }, () => ask(url, { stream: true })));
    const cold = ask(url, { model: 'cold' }).catch(() => null);
    await neuron.until(() => neuron.counters.loads === 1);
    first.child.kill('SIGKILL');
    await first.finished;
    for (const stream of streams) assert.doesNotMatch(await stream.text().catch(() => ''), /\[DONE\]/);
    await cold;
    await neuron.until(() => neuron.counters.aborted >= 5);
    neuron.onChat = answers;
    const polls = neuron.counters.models;
    const second = serve(path);
    assert.equal(await urlOf(second), url);
    assert.equal(neuron.counters.models, polls + 1);
    assert.equal((await ask(url)).status, 200);
    const again = ask(url, { model: 'cold' });
    await neuron.until(() => neuron.events.filter((event) => event === 'load cold').length === 2);
    gate.open();
    assert.equal((await again).status, 200);
    assert.equal(neuron.counters.loads, 1);
    second.child.kill('SIGTERM');
    assert.equal((await second.finished).code, 0);
  });

  test('nobody reads its log: it serves all the same, and stops', async () => {
    const neuron = await fakeNeuron();
    const path = join(dir, 'stalled.toml');
    const port = await freePort();
    write(path, port, [neuron]);
    writeFileSync(path, `${readFileSync(path, 'utf8')}[log]\nlevel = "debug"\n`);
    const serving = serve(path);
    const url = await urlOf(serving);
    serving.child.stderr?.pause();
    // each answer is a line of some 4 kB; what stands between the processes holds a few hundred
    for (let i = 0; i < 300; i++) {
      const answer = await fetch(`${url}/v1/models/${'x'.repeat(4000)}`);
      assert.equal(answer.status, 404);
    }
    assert.equal((await ask(url)).status, 200);
    const exited = new Promise((resolve) => serving.child.once('exit', resolve));
    serving.child.kill('SIGTERM');
    assert.equal(await exited, 0);
  });

  test('drain and cancel from the command line', async () => {
    const neuron = await fakeNeuron();
    neuron.addModel({ id: 'cold' });
    const path = join(dir, 'drain.toml');
    write(path, 0, [neuron]);
    const serving = serve(path);
    const url = await urlOf(serving);
    const run = (...args: string[]) => runCli('cortex', [...args, '-e', url]);
    neuron.onLoad = () => new Promise(() => {});
    const cold = ask(url, { model: 'cold' });
    await neuron.until(() => neuron.counters.loads === 1);
    assert.equal((await run('cancel', 'cold')).stdout, 'the load of cold is cancelled\n');
    assert.equal((await cold).status, 409);
    const drained = await run('drain', 'n0', '--wait');
    assert.deepEqual([drained.stdout, drained.stderr], ['n0 is drained: nothing runs there\n', '']);
    assert.match((await run('status')).stdout, /^n0 +drained/m);
    assert.equal((await ask(url)).status, 503);
    assert.equal((await run('drain', 'n0', '--undo')).stdout, 'n0 is back in service\n');
    assert.equal((await ask(url)).status, 200);
    assert.match((await run('drain', 'n0', '--cordon')).stdout, /^n0 loads nothing new/);
    assert.equal((await run('undrain', 'n0')).stdout, 'n0 is back in service\n');
    assert.match((await run('undrain', 'moon')).stderr, /there is no node "moon"/);
    assert.match((await run('drain', 'n0', '--undo', '--wait')).stderr, /--undo puts the node back/);
    assert.match((await run('drain', 'moon')).stderr, /there is no node "moon"/);
    serving.child.kill('SIGTERM');
    await serving.finished;
  });
});

test('a neuron reads its file again on SIGHUP, and stops on SIGTERM', { timeout: hangMs }, async () => {
  const path = join(dir, 'neuron.toml');
  const lines = (queue: string) =>
    `listen = "127.0.0.1"\nport = 0\n[admission]\nmax_queue_depth = ${queue}\n`;
  writeFileSync(path, lines('8'));
  const neuron = new CliProcess('neuron', ['--config', path]);
  after(() => neuron.child.kill('SIGKILL'));
  await neuron.output(/"neuron listens"/);
  writeFileSync(path, lines('"many"'));
  neuron.child.kill('SIGHUP');
  await neuron.output(/neuron\.toml:4 admission\.max_queue_depth: must be [^\n]*nothing was changed/);
  writeFileSync(path, lines('2').replace('port = 0', 'port = 1'));
  neuron.child.kill('SIGHUP');
  await neuron.output(/admission\.max_queue_depth: 8 -> 2"\],"needs_restart":\["port: 0 -> 1"/);
  neuron.child.kill('SIGTERM');
  assert.equal((await neuron.finished).code, 0);
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
