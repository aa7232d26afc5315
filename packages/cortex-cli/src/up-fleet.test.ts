/** What docs/fleet.md promises of `cortex up --nodes 3`: a fleet to watch, from the command line, with real weights. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findShippedModelDir, SHIPPED_MODEL } from './model-files.ts';
import { CliProcess, type Finished, runCli } from './spawn-cli.test.kit.ts';
import { distDir } from './terminal.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-up-fleet-'));
const options = { env: { CORTEX_HOME: join(dir, 'state') }, cwd: dir };
const question = 'What is the capital of France?';
/** With the model that ships one more than fit: a model takes more than 100 of the 200, 200 and 400 MiB. */
const models = ['one', 'two', 'three', 'four', 'five'];

interface Node {
  readonly name: string;
  readonly healthy: boolean;
  readonly models: readonly { readonly id: string; readonly status: string }[];
  readonly devices: readonly { readonly vram_free_mb: number }[];
}

describe('cortex up --nodes 3', { timeout: 170_000, skip: process.platform !== 'linux' }, () => {
  let up: CliProcess;
  let url = '';
  let metricsUrl = '';
  before(async () => {
    const shipped = join(findShippedModelDir(distDir) ?? '', `${SHIPPED_MODEL}.gguf`);
    mkdirSync(join(dir, 'models'));
    for (const name of models) copyFileSync(shipped, join(dir, 'models', `${name}.gguf`));
    const ports = ['--port', '0', '--metrics-port', '0', '--neuron-port', '0'];
    up = new CliProcess('cortex', ['up', ...ports, '--nodes', '3', '--budgets', '200,200,400'], options);
    [, url = ''] = await up.output(/ready +(http:\S+)/);
    [, metricsUrl = ''] = await up.output(/metrics +(http:\S+)/);
  });
  after(async () => {
    up.child.kill('SIGINT');
    await up.finished;
    rmSync(dir, { recursive: true, force: true });
  });

  const cortex = (...args: string[]): Promise<Finished> => runCli('cortex', [...args, '-e', url], options);

  async function done(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await cortex(...args);
    assert.equal(code, 0, `cortex ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  async function nodes(): Promise<readonly Node[]> {
    const answer = await fetch(`${url}/admin/fleet`);
    return ((await answer.json()) as { nodes: readonly Node[] }).nodes;
  }

  const post = (path: string, body: object): Promise<Response> =>
    fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify(body) });

  async function answers(model: string): Promise<void> {
    const messages = [{ role: 'user', content: question }];
    const answer = await post('/v1/chat/completions', { model, messages, temperature: 0 });
    assert.match(await answer.text(), /Paris/);
  }

  async function holderOf(model: string): Promise<string> {
    const holds = (node: Node) => node.models.some(({ id, status }) => id === model && status === 'loaded');
    return (await nodes()).find(holds)?.name ?? `nobody has ${model}`;
  }

  test('loads each model where there is room, and evicts when there is none', async () => {
    for (const model of models.slice(1)) await answers(model);
    assert.match(await done('run', 'one', question), /Paris/);
    const metrics = await (await fetch(metricsUrl)).text();
    assert.match(metrics, /^cortex_evictions_total\{[^}]*reason="room"\} [1-9]/m);
    for (const { name, devices } of await nodes()) assert.ok((devices[0]?.vram_free_mb ?? -1) >= 0, name);
  });

  test('drains a node: its model is served elsewhere, and the node comes back', async () => {
    await answers('five');
    const drained = await holderOf('five');
    assert.match(await done('drain', drained, '--wait'), /is drained: nothing runs there/);
    assert.match(await done('explain', 'five'), new RegExp(`${drained} is drained by an operator`));
    await answers('five');
    assert.match(await done('status'), new RegExp(`^${drained} +drained`, 'm'));
    assert.match(await done('undrain', drained), /is back in service/);
  });

  test('shows what a defragmentation would do, does it, and serves as before', async () => {
    // Its cycles count loads too; a device is worn by models that left, which the next poll tells.
    let [worn, plan] = ['', 'nothing to do'];
    while (plan.includes('nothing to do')) {
      for (const { name } of await nodes()) {
        [worn, plan] = [name, await done('defrag', name, '--dry-run')];
        if (!plan.includes('nothing to do')) break;
      }
    }
    assert.match(plan, /recycle +device 0: [\s\S]*nothing was changed/);
    assert.match(await done('defrag', worn), /1 device recycled/);
    for (const model of ['five', 'one']) await answers(model);
  });

  test('a neuron that is killed in the middle of an answer takes nothing of it along', async () => {
    for (const node of ['node1', 'node2'])
      assert.equal((await post('/admin/load', { model: 'five', node })).status, 200);
    const messages = [{ role: 'user', content: 'Tell me a long story.' }];
    const long = { model: 'five', messages, stream: true, max_tokens: 500, ignore_eos: true };
    const answer = await post('/v1/chat/completions', long);
    const [, node = ''] = /node=(node\d)/.exec(answer.headers.get('x-cortex-route') ?? '') ?? [];
    const decoder = new TextDecoder();
    let text = '';
    let isKilled = false;
    for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(chunk, { stream: true });
      if (isKilled || !text.includes('"content":"')) continue;
      isKilled = true;
      process.kill(neuronAt(Number(node.slice(-1))), 'SIGKILL');
    }
    assert.ok(isKilled);
    assert.match(text, /"finish_reason":"length"[\s\S]*data: \[DONE\]\s*$/);
    assert.doesNotMatch(text, /"error"/);
    await up.output(new RegExp(`${node} +back on http`));
    while (!(await nodes()).every(({ healthy }) => healthy)) await new Promise((go) => setImmediate(go));
    assert.match(await done('status'), /3 of 3 nodes healthy/);
    await answers('five');
  });

  /** The process of a node: neurons are started in their order. */
  function neuronAt(number: number): number {
    const pid = up.child.pid ?? 0;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
    return children[number - 1] ?? 0;
  }
});
