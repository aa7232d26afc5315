import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { silentLog } from 'cortex-core/daemon/log';
import { hangMs } from 'testkit/hang';
import type { FromOwner } from './jobs.ts';
import { createProcessTransport } from './process-transport.ts';
import { createThreadTransport } from './thread-transport.ts';
import type { OwnerLink, Transport } from './transport.ts';

/** Spawns an owner and waits for its end. */
async function endOf(transport: Transport): Promise<{ cause: string; link: OwnerLink }> {
  let link: OwnerLink | undefined;
  const cause = await new Promise<string>((resolve) => {
    link = transport.spawn({ onMessage: () => {}, onExit: resolve });
  });
  assert.ok(link !== undefined);
  return { cause, link };
}

const crash = "console.error('last words'); throw new Error('boom')";

test('a thread that throws ends with the error as its cause', async () => {
  const entry = new URL(`data:text/javascript,${encodeURIComponent(crash)}`);
  const { cause, link } = await endOf(createThreadTransport({ name: 'device-x', log: silentLog, entry }));
  assert.equal(cause, 'uncaught error: boom');
  link.post({ kind: 'Shutdown' });
  link.terminate();
});

test('a process that fails ends with its exit code and its last lines', async () => {
  const entry = new URL('file:///nowhere/process-main.js');
  const { cause, link } = await endOf(createProcessTransport({ env: {}, log: silentLog, entry }));
  assert.equal(cause, 'exit code 1');
  assert.match(link.stderrTail().join('\n'), /Cannot find module/);
  link.post({ kind: 'Shutdown' });
  link.cancelLoad(1);
  link.terminate();
});

test('an engine that cannot open is reported by both transports, then the owner ends', async () => {
  for (const transport of [
    createThreadTransport({ name: 'device-x', log: silentLog }),
    createProcessTransport({ env: {}, log: silentLog }),
  ]) {
    const messages: FromOwner[] = [];
    const cause = await new Promise<string>((resolve) => {
      const link = transport.spawn({ onMessage: (message) => messages.push(message), onExit: resolve });
      const options = { libraryDir: '/nowhere', nativeLog: false, gpu: false, faults: [] };
      link.post({ kind: 'Start', firstHandle: 1, life: 1, options });
    });
    assert.equal(cause, 'exit code 0');
    assert.equal(messages.length, 1);
    assert.equal(messages[0]?.kind === 'StartFailed' && messages[0].error.code, 'load_failed');
  }
});

test('an owner process ends with its parent', { skip: process.platform !== 'linux' }, async () => {
  const script = `
    const { createProcessTransport } = await import(${JSON.stringify(new URL('./process-transport.js', import.meta.url))});
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const link = createProcessTransport({ env: {}, log }).spawn({
      onMessage: () => process.stdout.write(String(link.pid)),
      onExit: () => {},
    });
    link.post({ kind: 'Start', firstHandle: 1, life: 1, options: { libraryDir: null, nativeLog: false, gpu: false, faults: [] } });
  `;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ownerPid = await new Promise<number>((resolve) => {
    parent.stdout.once('data', (data: Buffer) => resolve(Number(data)));
  });
  assert.ok(isRunning(ownerPid));
  parent.kill('SIGKILL');
  const deadline = AbortSignal.timeout(hangMs);
  while (isRunning(ownerPid)) await pause(5, undefined, { signal: deadline });
});

/** A zombie, which nobody reaps in a container without an init, has ended too. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
