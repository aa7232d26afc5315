/**
 * Neurons as processes of their own, for the tests that kill them. This file is the program of the child,
 * too: it gets its configuration over IPC, says where it listens, and leaves with its parent.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { loadConfig } from 'cortex-core/config/load';
import { silentLog } from 'cortex-core/daemon/log';
import { startNeuron } from 'neuron/neuron';

export interface NeuronChild {
  readonly url: string;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

const self = fileURLToPath(import.meta.url);

/** Resolves when its default models are loaded. `settings`: as in neuron.toml, over a small base. */
export async function startNeuronChild(settings: Readonly<Record<string, unknown>>): Promise<NeuronChild> {
  const child = fork(self, ['neuron-child'], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(String(message)));
    child.once('exit', (code, signal) => reject(new Error(`the neuron ended: ${code ?? signal}`)));
    child.send(settings);
  });
  return { url, kill: () => end(child, gone) };
}

function end(child: ChildProcess, gone: Promise<void>): Promise<void> {
  child.kill('SIGKILL');
  return gone;
}

if (process.argv[2] === 'neuron-child' && process.send !== undefined) {
  process.once('disconnect', () => process.exit(0));
  process.once('message', async (defaults) => {
    const neuron = await startNeuron(
      loadConfig('neuron', { defaults: defaults as Record<string, unknown> }),
      {
        log: silentLog,
      },
    );
    await neuron.activated;
    process.send?.(neuron.url);
  });
}
