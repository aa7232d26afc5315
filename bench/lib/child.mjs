/** Child processes of a run: all are ended with it, whatever happens. */
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const running = new Set();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A fork of `entry` that answers one message at a time; `ask` resolves with the answer. */
export async function forkAsking(entry, start, execArgv = []) {
  const child = track(
    fork(new URL(entry, import.meta.url), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], execArgv }),
  );
  const ask = (message) =>
    new Promise((resolve, reject) => {
      const onExit = (code) => reject(new Error(`${entry} ended with ${code}`));
      child.once('exit', onExit);
      child.once('message', (answer) => {
        child.off('exit', onExit);
        if (answer.error) reject(new Error(`${entry}: ${answer.error}`));
        else resolve(answer.value);
      });
      child.send(message);
    });
  const value = await ask({ command: 'start', ...start });
  return { value, ask, pid: child.pid, close: () => end(child) };
}

/** Resolves with the base URL when /health answers. */
export async function spawnServer(file, argsOf) {
  const port = await freePort();
  const child = track(spawn(file, argsOf(port), { stdio: ['ignore', 'ignore', 'pipe'] }));
  let tail = '';
  child.stderr.on('data', (chunk) => {
    tail = (tail + chunk).slice(-2000);
  });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; tries < 600; tries++) {
    if (child.exitCode !== null) throw new Error(`${file} ended with ${child.exitCode}: ${tail}`);
    const health = await fetch(`${url}/health`).catch(() => null);
    if (health?.ok) return { url, pid: child.pid, close: () => end(child) };
    await sleep(100);
  }
  await end(child);
  throw new Error(`${file} did not become healthy: ${tail}`);
}

function track(child) {
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 8000);
  await gone;
  clearTimeout(timer);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
