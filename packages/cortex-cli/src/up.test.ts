/** `cortex up` end to end: real processes, real weights, free ports. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { hangMs } from 'testkit/hang';
import { findShippedModelDir, SHIPPED_MODEL } from './model-files.ts';
import { CliProcess, runCli } from './spawn-cli.test.kit.ts';
import { distDir } from './terminal.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-up-'));
after(() => rmSync(dir, { recursive: true }));
const options = { env: { CORTEX_HOME: join(dir, 'state') }, cwd: dir };
const freePorts = ['--port', '0', '--metrics-port', '0', '--neuron-port', '0'];
const hasProc = process.platform === 'linux';

describe('cortex up', { timeout: hangMs }, () => {
  test('streams an answer to the curl line it printed, and SIGINT leaves no process behind', async () => {
    const up = spawnUp();
    const [, url = ''] = await up.output(/ready +(http:\S+)/);
    const [, line = ''] = await up.output(/^ +(curl -N .*)$/m);
    const events = execFileSync('sh', ['-c', `${line.replace('curl', 'curl -sS')}`], { encoding: 'utf8' });
    const chunks = events.split('\n\n').filter((event) => event.includes('"choices"'));
    assert.ok(chunks.length > 1, events);
    assert.match(events, /data: \[DONE\]\s*$/);

    const answer = await runCli('cortex', ['run', 'cortex-tiny', 'Hello', '-n', '8', '-e', url], options);
    assert.deepEqual([answer.code, answer.stderr], [0, '']);
    assert.notEqual(answer.stdout.trim(), '');
    const status = await runCli('cortex', ['status', '-e', url], options);
    assert.match(status.stdout, /^ok .*1 of 1 nodes healthy[\s\S]*cortex-tiny \(loaded/, status.stderr);
    const models = await runCli('cortex', ['models', '-e', url], options);
    assert.match(models.stdout, /cortex-tiny +loaded/);
    const unload = await runCli('cortex', ['unload', 'cortex-tiny', '-e', url], options);
    assert.deepEqual([unload.code, unload.stderr], [0, '']);
    const load = await runCli('cortex', ['load', 'cortex-tiny', '-e', url], options);
    assert.match(load.stdout, /cortex-tiny is loaded/, load.stderr);

    const descendants = hasProc ? descendantsOf(up.child.pid ?? 0) : [];
    if (hasProc) assert.notEqual(descendants.length, 0);
    const stoppedMs = performance.now();
    up.child.kill('SIGINT');
    const finished = await up.finished;
    assert.ok(performance.now() - stoppedMs < 5000);
    assert.deepEqual([finished.code, finished.stderr], [0, '']);
    assert.match(finished.stdout, /stopping \.\.\.\nstopped\n$/);
    assert.deepEqual(descendants.filter(isRunning), []);
  });

  test('a neuron that is killed is started again and answers', async () => {
    const up = spawnUp();
    const [, url = ''] = await up.output(/ready +(http:\S+)/);
    const [neuron = 0] = hasProc ? childrenOf(up.child.pid ?? 0) : [];
    if (neuron === 0) return;
    process.kill(neuron, 'SIGKILL');
    await up.output(/the neuron ended \(signal SIGKILL\); starting it again in/);
    await up.output(/back on http/);
    const answer = await runCli('cortex', ['run', 'cortex-tiny', 'Hello', '-n', '4', '-e', url], options);
    assert.equal(answer.code, 0, answer.stderr);
    up.child.kill('SIGTERM');
    assert.equal((await up.finished).code, 0);
  });

  test('gateway and neuron read their files again, also when the neuron was started anew', async () => {
    const [cortexFile, neuronFile] = [join(dir, 'cortex.toml'), join(dir, 'neuron.toml')];
    const write = (keepalive: number, queue: number): void => {
      writeFileSync(cortexFile, `[gateway]\nwatch_config = false\nkeepalive_secs = ${keepalive}\n`);
      writeFileSync(neuronFile, `[admission]\nmax_queue_depth = ${queue}\n`);
    };
    write(10, 8);
    const up = spawnUp([...freePorts, '--config', cortexFile, '--neuron-config', neuronFile]);
    const [, url = ''] = await up.output(/ready +(http:\S+)/);
    write(5, 3);
    const told = await runCli('cortex', ['reload', '-e', url], options);
    assert.equal(
      told.stdout,
      'reloaded:\n  gateway.keepalive_secs: 10 -> 5\n  neuron: admission.max_queue_depth: 8 -> 3\n',
      told.stderr,
    );
    const [neuron = 0] = hasProc ? childrenOf(up.child.pid ?? 0) : [];
    if (neuron !== 0) {
      process.kill(neuron, 'SIGKILL');
      await up.output(/back on http/);
    }
    writeFileSync(neuronFile, '[admission]\nmax_queue = 1\n');
    up.child.kill('SIGHUP');
    await up.output(/nothing was changed\n +.*neuron\.toml:2 admission\.max_queue: unknown key/);
    write(5, 2);
    up.child.kill('SIGHUP');
    await up.output(/reloaded +neuron: admission\.max_queue_depth: 3 -> 2/);
    up.child.kill('SIGTERM');
    assert.equal((await up.finished).code, 0);
  });

  test('the neuron leaves when up itself is killed', { skip: !hasProc }, async () => {
    const up = spawnUp();
    await up.output(/ready +http/);
    const descendants = descendantsOf(up.child.pid ?? 0);
    up.child.kill('SIGKILL');
    await up.finished;
    while (descendants.some(isRunning)) await new Promise((resolve) => setImmediate(resolve));
  });

  test('--nodes 3 is a fleet: three neurons, one dies and comes back, all leave at the end', async () => {
    const up = spawnUp([...freePorts, '--budgets', '200,400,800']);
    const [, url = ''] = await up.output(/ready +(http:\S+)/);
    for (const [name, size] of [
      ['node1', '200 MiB'],
      ['node2', '400 MiB'],
      ['node3', '800 MiB'],
    ]) {
      assert.match(up.stdout, new RegExp(`${name} +http://127\\.0\\.0\\.1:\\d+, ${size} for models`));
    }
    assert.match(up.stdout, /loaded +cortex-tiny on node3 in/);
    const load = await runCli('cortex', ['load', 'cortex-tiny', '--node', 'node1', '-e', url], options);
    assert.deepEqual([load.code, load.stderr], [0, '']);
    const status = await runCli('cortex', ['status', '-e', url], options);
    assert.match(status.stdout, /3 of 3 nodes healthy/);
    assert.match(status.stdout, /node1 .*cortex-tiny \(loaded/);
    const dry = await runCli('cortex', ['defrag', '--dry-run', '-e', url], options);
    assert.match(dry.stdout, /^node1 {2}nothing to do: no model is kept out by fragments$/m, dry.stderr);
    const [first = 0] = hasProc ? childrenOf(up.child.pid ?? 0) : [];
    if (first !== 0) {
      process.kill(first, 'SIGKILL');
      await up.output(/node\d ended \(signal SIGKILL\); starting it again in/);
      await up.output(/node\d +back on http/);
    }
    const answer = await runCli('cortex', ['run', 'cortex-tiny', 'Hello', '-n', '4', '-e', url], options);
    assert.equal(answer.code, 0, answer.stderr);
    const descendants = hasProc ? descendantsOf(up.child.pid ?? 0) : [];
    up.child.kill('SIGINT');
    assert.equal((await up.finished).code, 0);
    assert.deepEqual(descendants.filter(isRunning), []);
  });

  test('a stop while it starts is a clean stop', async () => {
    const up = spawnUp();
    await up.output(/^cortex \d/);
    up.child.kill('SIGHUP');
    assert.equal((await up.finished).code, 0);
  });

  test('a port in use is one line that names the option, exit code 1', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => blocker.once('listening', resolve));
    after(() => blocker.close());
    const { port } = blocker.address() as AddressInfo;
    for (const option of ['--port', '--metrics-port', '--neuron-port']) {
      const at = freePorts.indexOf(option);
      const args = freePorts.with(at + 1, String(port));
      const { code, stderr } = await spawnUp(args).finished;
      assert.match(stderr, new RegExp(`^cortex: 127\\.0\\.0\\.1:${port} is in use; .*${option}[^\\n]*\\n$`));
      assert.equal(code, 1);
    }
  });

  test('a model file cut in half is one line that names it, exit code 1', async () => {
    const shipped = findShippedModelDir(distDir);
    assert.ok(shipped !== null);
    const half = join(dir, 'half.gguf');
    copyFileSync(join(shipped, `${SHIPPED_MODEL}.gguf`), half);
    truncateSync(half, 1_600_000);
    const { code, stderr } = await spawnUp(['--model', half, ...freePorts]).finished;
    assert.match(stderr, /^cortex: model half is not loaded: [^\n]+\n$/);
    assert.equal(code, 1);
  });
});

function spawnUp(args: readonly string[] = freePorts): CliProcess {
  const up = new CliProcess('cortex', ['up', ...args], options);
  after(() => up.child.kill('SIGKILL'));
  return up;
}

function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

function descendantsOf(pid: number): readonly number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)]);
}

/** Neither gone nor a zombie that nobody has collected yet. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
