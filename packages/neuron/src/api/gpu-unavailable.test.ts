import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { type Log, silentLog } from 'cortex-core/daemon/log';
import type { Discovery, NeuronHealth, NeuronModel } from 'cortex-core/wire/neuron';
import { findLibrary } from '../libllama/find-library.ts';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const skip =
  process.platform === 'linux' ? false : 'its nvidia-smi is a shell script, its package that of Linux';
const rows = ['0', '1'].map((index) => `${index}, NVIDIA A40, 46068, 3, 46065, 0, 30, 8.6, 535.104.05`);

/**
 * A machine with NVIDIA GPUs as nvidia-smi tells it, and libllama as it is without any: the CPU's build, where
 * wanted under the name of the CUDA package.
 */
describe('GPUs that cannot be used', { skip }, () => {
  const path = process.env.PATH;
  let dir: string;
  let cudaDir: string;
  let neuron: Neuron | null = null;

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'gpus-'));
    cudaDir = join(dir, '@node-llama-cpp', 'linux-x64-cuda', 'bins', 'linux-x64-cuda');
    mkdirSync(dirname(cudaDir), { recursive: true });
    symlinkSync(findLibrary({ variant: 'cpu' }).directory, cudaDir);
    process.env.PATH = `${dir}:${path}`;
  });
  after(() => {
    process.env.PATH = path;
    rmSync(dir, { recursive: true });
  });
  afterEach(async () => {
    await neuron?.close();
    neuron = null;
  });

  async function start(
    smi: string,
    libraryDir: string | null,
    models: object[] = [],
    engine: object = {},
  ): Promise<Neuron> {
    writeFileSync(join(dir, 'nvidia-smi'), `#!/bin/sh\n${smi}\n`, { mode: 0o755 });
    const config = neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      engine: { threads: 1, slots: 1, libllama: libraryDir === null ? 'cpu' : 'auto', ...engine },
      models: { dirs: [dirname(tiny)], hf_cache: join(dir, 'no-such-hub') },
      default_models: models,
    });
    neuron = await startNeuron(config, {
      log: silentLog,
      env: libraryDir === null ? {} : { NEURON_LIBLLAMA_DIR: libraryDir },
    });
    await neuron.activated;
    return neuron;
  }

  async function load(body: object): Promise<{ status: number; error: string; code: string }> {
    const options = { method: 'POST', body: JSON.stringify({ model_id: 'cortex-tiny', ...body }) };
    const response = await fetch(`${neuron?.url}/models/load`, options);
    const { error = '', code = '' } = (await response.json()) as { error?: string; code?: string };
    return { status: response.status, error, code };
  }

  async function discovery(): Promise<Discovery> {
    return (await (await fetch(`${neuron?.url}/discovery`)).json()) as Discovery;
  }

  const two = `[ $# -gt 0 ] && printf '${rows.join('\\n')}\\n' || echo 'CUDA Version: 12.2 '`;

  it('because libllama does not see them: loads are refused with the reason, the CPU must be asked for', async () => {
    await start(two, cudaDir, [{ model_id: 'cortex-tiny' }]);
    const [failed] = neuron?.activation.state.failed ?? [];
    assert.match(failed?.error ?? '', /cannot use this machine's GPUs: .* it is built for CUDA 13/);
    const refused = await load({});
    assert.deepEqual([refused.status, refused.code], [503, 'cuda_unavailable'], refused.error);
    assert.match(
      refused.error,
      /sees no CUDA device although nvidia-smi lists 2 \(driver 535\.104\.05, CUDA 12\.2\)/,
    );
    const { devices, cuda_unavailable_reason: reason } = await discovery();
    assert.deepEqual(
      devices.map(({ index, kind, usable }) => [index, kind, usable]),
      [
        [0, 'cuda', false],
        [1, 'cuda', false],
        [2, 'cpu', false],
      ],
    );
    assert.match(reason ?? '', /linux-x64-cuda-ext/);
    assert.equal((await load({ devices: [0, 1] })).code, 'cuda_unavailable');
    assert.equal((await load({ devices: [2] })).status, 200);
  });

  it('because driver and library differ: loads are refused in the words of nvidia-smi', async () => {
    const text = 'Failed to initialize NVML: Driver/library version mismatch';
    await start(`echo '${text}'; exit 18`, cudaDir);
    const refused = await load({});
    assert.deepEqual([refused.status, refused.code], [503, 'cuda_unavailable']);
    assert.match(refused.error, /Driver\/library version mismatch: .*reboot/);
  });

  it('because the package has no CUDA: models run on the CPU, and the package is named', async () => {
    await start(two, null);
    assert.equal((await load({})).status, 200);
    const { devices, cuda_unavailable_reason: reason } = await discovery();
    assert.match(reason ?? '', /install @node-llama-cpp\/[\w-]+-cuda/);
    assert.deepEqual(
      devices.map(({ usable }) => usable),
      [false, false, undefined],
    );
    const refused = await load({ model_id: 'other', devices: [1] });
    assert.deepEqual([refused.status, refused.code], [503, 'cuda_unavailable']);
  });

  it('while nvidia-smi hangs: /health has the last figures, from one process for all who ask', async () => {
    const [hangs, calls] = [join(dir, 'hangs'), join(dir, 'calls')];
    await start(`echo >> '${calls}'; while [ -e '${hangs}' ]; do sleep 0.05; done\n${two}`, null);
    const atStart = readFileSync(calls, 'utf8').length;
    writeFileSync(hangs, '');
    try {
      const answers = [1, 2, 3].map(async () => (await fetch(`${neuron?.url}/health`)).json());
      for (const { devices } of (await Promise.all(answers)) as NeuronHealth[]) {
        assert.deepEqual(
          devices.slice(0, 2).map(({ vram_free_mb: free }) => free),
          [46_065, 46_065],
        );
      }
      while (readFileSync(calls, 'utf8').length === atStart) await new Promise((go) => setImmediate(go));
      assert.equal(readFileSync(calls, 'utf8').length - atStart, 1);
    } finally {
      rmSync(hangs);
    }
  });

  it('before any load, a model is listed with what fits into the memory that nvidia-smi tells', async () => {
    const silentDir = join(dir, 'silent');
    mkdirSync(silentDir);
    for (const name of ['llama', 'ggml', 'ggml-base']) writeFileSync(join(silentDir, `lib${name}.so`), '');
    const row = '0, NVIDIA A40, 200, 3, 197, 0, 30, 8.6, 535.104.05';
    await start(`echo '${row}'`, silentDir, [], { context: 'auto' });
    const models = (await (await fetch(`${neuron?.url}/models`)).json()) as NeuronModel[];
    const { vram_estimate_mb: mb } = models.find(({ id }) => id === 'cortex-tiny') ?? {};
    assert.ok(mb && mb > 150 && mb <= 200, String(mb));
  });

  it('a budget of a device that is not there is warned of, with those that are', async () => {
    writeFileSync(join(dir, 'nvidia-smi'), `#!/bin/sh\n${two}\n`, { mode: 0o755 });
    const config = neuronConfigSchema.parse({
      listen: '127.0.0.1',
      port: 0,
      engine: { libllama: 'cpu' },
      devices: [0, 7].map((index) => ({ index, memory_mb: 100 })),
    });
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (text) => void warnings.push(text), child: () => log };
    neuron = await startNeuron(config, { log });
    assert.deepEqual(
      warnings.filter((text) => text.includes('[[devices]]')),
      ['[[devices]] has a budget for device 7; this machine has 0 (cuda:0), 1 (cuda:1), 2 (cpu)'],
    );
  });
});
