import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { type NeuronDeath, NeuronProcess, type NeuronProcessOptions } from './neuron-process.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-neuron-process-'));
after(() => rmSync(dir, { recursive: true }));

function create(script: string, more: Partial<NeuronProcessOptions> = {}): NeuronProcess {
  const name = `child-${Math.random().toString(36).slice(2)}`;
  const entry = join(dir, `${name}.mjs`);
  writeFileSync(entry, script);
  const neuron = new NeuronProcess({
    entry,
    config: neuronConfigSchema.parse({ port: 0 }),
    logFile: join(dir, 'state', `${name}.log`),
    clock: systemClock,
    backoffMs: 1,
    onDeath: () => {},
    onRestart: () => {},
    ...more,
  });
  after(() => neuron.kill());
  return neuron;
}

const obedient = `
  process.on('SIGTERM', () => process.exit(0));
  process.once('message', ({ config }) => process.send({ type: 'ready', url: 'http://x:' + config.port, port: 77 }));`;

test('a child gets its configuration and tells its address', async () => {
  const neuron = create(obedient);
  assert.deepEqual(await neuron.start(), { url: 'http://x:0', port: 77 });
  await neuron.close();
  await neuron.close();
});

test('what a child says of its failure is the error', async () => {
  const neuron = create(
    `process.once('message', () => process.send({ type: 'failed', message: 'port 1 is in use' }))`,
  );
  await assert.rejects(neuron.start(), /^CliError: port 1 is in use$/);
});

test('a child that dies while starting: cause, log file and its last lines', async () => {
  const neuron = create(`console.error('native abort'); process.exit(7)`);
  await assert.rejects(neuron.start(), /\(exit code 7\); see .*\.log\n {2}native abort$/);
});

test('a child that dies later is started again on the same port', async () => {
  const deaths: NeuronDeath[] = [];
  const restarted = new Promise<string>((resolve) => {
    const neuron = create(
      `${obedient} process.on('message', (m) => { if (m.config.port === 0) { console.log('boom'); process.kill(process.pid, 'SIGKILL'); } })`,
      { onDeath: (death) => deaths.push(death), onRestart: ({ url }) => resolve(url) },
    );
    void neuron.start();
  });
  assert.equal(await restarted, 'http://x:77');
  assert.deepEqual(deaths, [{ cause: 'signal SIGKILL', logTail: ['boom'], restartInMs: 1 }]);
});

test('a child that was told of another port is started again where the gateway looks for it', async () => {
  let neuron: NeuronProcess | null = null;
  const restarted = new Promise<string>((resolve) => {
    neuron = create(
      `${obedient} process.on('message', (m) => { if (m.type === 'reload') process.kill(process.pid, 'SIGKILL'); })`,
      { onRestart: ({ url }) => resolve(url) },
    );
  });
  await neuron!.start();
  assert.equal(await neuron!.reload(neuronConfigSchema.parse({ port: 5 })), null);
  assert.equal(await restarted, 'http://x:77');
});

test('a child that ignores SIGTERM is killed after the grace', async () => {
  const neuron = create(
    `process.on('SIGTERM', () => {}); process.on('disconnect', () => {});
    setInterval(() => {}, 1000); process.once('message', () => process.send({ type: 'ready', url: 'u', port: 1 }))`,
    {
      graceMs: 1,
    },
  );
  await neuron.start();
  const { pid } = neuron;
  await neuron.close();
  assert.throws(() => process.kill(pid ?? 0, 0), /ESRCH/);
});

test('what the child started ends with it', async () => {
  const pidFile = join(dir, 'grandchild.pid');
  const neuron = create(`import { spawn } from 'node:child_process'; import { writeFileSync } from 'node:fs';
    const { pid } = spawn('sleep', ['1000'], { stdio: 'ignore' }); writeFileSync(${JSON.stringify(pidFile)}, String(pid));
    ${obedient}`);
  await neuron.start();
  await neuron.close();
  assert.equal(await isGone(Number(readFileSync(pidFile, 'utf8'))), true);
});

/** A killed process is gone, or a zombie that nobody has collected: not running in either case. */
async function isGone(pid: number): Promise<boolean> {
  for (;;) {
    try {
      if (/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return true;
    } catch {
      return true;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}
