import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BackendDevice } from 'cortex-core/wire/inference';
import { type DiscoverySources, discoverDevices, type Inventory } from './discovery.ts';
import { chooseUsableDevices, type OpenedLibrary } from './usable-devices.ts';

const rows = [
  '0, NVIDIA RTX A6000, 49140, 100, 49040, 0, 30, 8.6, 535.104.05',
  '1, NVIDIA RTX A6000, 49140, 100, 49040, 0, 31, 8.6, 535.104.05',
];
const cuda: OpenedLibrary = {
  variant: 'cuda',
  packageName: '@node-llama-cpp/linux-x64-cuda',
  hasFallback: false,
};
const vulkan: OpenedLibrary = {
  variant: 'vulkan',
  packageName: '@node-llama-cpp/linux-x64-vulkan',
  hasFallback: false,
};
const plain: OpenedLibrary = { variant: 'cpu', packageName: '@node-llama-cpp/linux-x64', hasFallback: false };
const own: OpenedLibrary = { variant: null, packageName: null, hasFallback: false };

function discover(query: string, cudaVersion = '12.4', exitCode = 0): Promise<Inventory> {
  const sources: DiscoverySources = {
    run: async (_file, args) => {
      const output = args.length > 0 ? query : `| Driver Version: 535.104.05 CUDA Version: ${cudaVersion} |`;
      return { exitCode, output, missing: query === '', timedOut: false };
    },
    env: {},
    cpuName: () => 'AMD EPYC',
    memory: () => ({ totalMb: 64_000, freeMb: 40_000 }),
    cpuBudgetMb: null,
  };
  return discoverDevices(sources);
}

function backend(...names: readonly string[]): readonly BackendDevice[] {
  return names.map((name, index) => {
    const kind = name === 'CPU' ? 'cpu' : name.startsWith('i') ? 'igpu' : 'gpu';
    const memory = { freeMb: 8000, totalMb: 8192 };
    return { index, name: name.replace(/^i/, ''), description: name, kind, memory };
  });
}

test('every GPU that libllama sees is used, and nothing is said', async () => {
  const found = await discover(rows.join('\n'));
  const { usable, unusable, inventory } = chooseUsableDevices(found, cuda, backend('CUDA0', 'CUDA1', 'CPU'));
  assert.deepEqual(
    usable.map(({ id }) => id),
    ['cuda:0', 'cuda:1', 'cpu'],
  );
  assert.deepEqual(unusable, []);
  assert.equal(inventory.cudaUnavailableReason, null);
});

test('a driver and library that differ are the reason, and no model goes to the CPU instead', async () => {
  const text = 'Failed to initialize NVML: Driver/library version mismatch';
  const chosen = chooseUsableDevices(await discover(text, '', 18), cuda, backend('CPU'));
  assert.match(chosen.inventory.cudaUnavailableReason ?? '', /mismatch.*reboot/);
  assert.equal(chosen.refuses, true);
});

test('a build without CUDA runs on the CPU, and says which package to install', async () => {
  const chosen = chooseUsableDevices(await discover(rows.join('\n')), plain, null);
  assert.match(
    chosen.inventory.cudaUnavailableReason ?? '',
    /linux-x64 has no CUDA; install @node-llama-cpp\/linux-x64-cuda/,
  );
  assert.equal(chosen.refuses, false);
  const arm = { ...plain, packageName: '@node-llama-cpp/linux-arm64' };
  const there = chooseUsableDevices(await discover(rows.join('\n')), arm, null);
  assert.match(there.inventory.cudaUnavailableReason ?? '', /no package for this machine has; build/);
  assert.deepEqual(
    chosen.unusable.map(({ index }) => index),
    [0, 1],
  );
  assert.deepEqual(
    chosen.usable.map(({ id, index }) => [id, index]),
    [['cpu', 2]],
  );
});

test('GPUs that nvidia-smi lists and libllama does not see are the reason, with what to do about it', async () => {
  const reasonOf = async (version: string, library: OpenedLibrary): Promise<string> => {
    const chosen = chooseUsableDevices(await discover(rows.join('\n'), version), library, backend('CPU'));
    assert.equal(chosen.refuses, true);
    return chosen.inventory.cudaUnavailableReason ?? '';
  };
  assert.match(
    await reasonOf('11.8', cuda),
    /sees no CUDA device although nvidia-smi lists 2 \(driver 535\.104\.05, CUDA 11\.8\): the driver is too old/,
  );
  assert.match(await reasonOf('12.2', cuda), /for CUDA 13; install @node-llama-cpp\/linux-x64-cuda-ext/);
  assert.match(await reasonOf('12.8', { ...cuda, hasFallback: true }), /is the runtime of CUDA 12 installed/);
  assert.match(await reasonOf('13.0', cuda), /is the runtime of CUDA 13 installed/);
  assert.match(await reasonOf('12.2', own), /own build.*was it built with CUDA/);
  assert.match(await reasonOf('12.2', vulkan), /sees no Vulkan device .* are the Vulkan loader/);
});

test('one GPU that libllama does not see leaves the other in use', async () => {
  const chosen = chooseUsableDevices(await discover(rows.join('\n')), cuda, backend('CUDA0', 'CPU'));
  assert.match(chosen.inventory.cudaUnavailableReason ?? '', /sees no cuda:1 although/);
  assert.deepEqual(
    chosen.usable.map(({ id }) => id),
    ['cuda:0', 'cpu'],
  );
});

test('a MIG device, whose memory nvidia-smi does not tell, is used', async () => {
  const mig = await discover('0, NVIDIA H100, [N/A], [N/A], [N/A], [N/A], 30, 9.0, 550.1');
  const chosen = chooseUsableDevices(mig, cuda, backend('CUDA0', 'CPU'));
  assert.deepEqual(
    chosen.usable.map(({ id, vram_total_mb }) => [id, vram_total_mb]),
    [
      ['cuda:0', 8192],
      ['cpu', 48_000],
    ],
  );
});

test('NVIDIA GPUs under Vulkan are used as libllama names them', async () => {
  const seen = backend('Vulkan0', 'Vulkan1', 'CPU');
  const chosen = chooseUsableDevices(await discover(rows.join('\n')), vulkan, seen);
  assert.deepEqual(
    chosen.usable.map(({ id, index, backendIndex }) => [id, index, backendIndex]),
    [
      ['vulkan:0', 0, 0],
      ['vulkan:1', 1, 1],
      ['cpu', 2, null],
    ],
  );
  assert.equal(chosen.inventory.cudaUnavailableReason, null);
});

test('Apple silicon and integrated GPUs are known to take the memory of the host', async () => {
  const mac = chooseUsableDevices(await discover(''), own, backend('MTL0', 'CPU'));
  assert.deepEqual(
    mac.usable.map(({ id, kind, sharesHostMemory }) => [id, kind, sharesHostMemory ?? false]),
    [
      ['metal:0', 'metal', true],
      ['cpu', 'cpu', false],
    ],
  );
  const laptop = chooseUsableDevices(await discover(''), vulkan, backend('iVulkan0', 'CPU'));
  assert.equal(laptop.usable[0]?.sharesHostMemory, true);
});

test('a list that libllama did not give hides no GPU', async () => {
  const chosen = chooseUsableDevices(await discover(rows.join('\n')), cuda, null);
  assert.equal(chosen.inventory.cudaUnavailableReason, null);
  assert.equal(chosen.usable.length, 3);
});
