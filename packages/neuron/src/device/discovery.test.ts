import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { BackendDevice } from 'cortex-core/wire/inference';
import { discoverySchema, healthSchema } from 'cortex-core/wire/neuron';
import { FakeClock } from 'testkit/clock';
import { DeviceHealthReader } from './device-health.ts';
import {
  createRunCommand,
  type DiscoverySources,
  discoverDevices,
  mergeBackendDevices,
  readDeviceHealth,
  toWireDevices,
} from './discovery.ts';
import type { CommandResult } from './nvidia-smi.ts';
import { parseGpuRows } from './nvidia-smi.ts';

const ok = (output: string): CommandResult => ({ exitCode: 0, output, missing: false, timedOut: false });
const failed = (exitCode: number, output: string): CommandResult => ({ ...ok(output), exitCode });
const missing: CommandResult = { exitCode: null, output: '', missing: true, timedOut: false };
const stuck: CommandResult = { exitCode: null, output: '', missing: false, timedOut: true };

const rows = [
  '0, NVIDIA H100 80GB HBM3, 81559, 1024, 80535, 12, 41, 9.0, 550.54.15',
  '1, NVIDIA GeForce RTX 4090, 24564, 0, 24100, 0, 33, 8.9, 550.54.15',
].join('\n');
const header = '| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |\n';

function sources(query: CommandResult, plain = ok(header), env = {}): DiscoverySources {
  return {
    run: async (_file, args) => (args.length > 0 ? query : plain),
    env,
    cpuName: () => 'AMD EPYC',
    memory: () => ({ totalMb: 64_000, freeMb: 40_000 }),
    cpuBudgetMb: null,
  };
}

test('discoverDevices() lists the GPUs under their index and the CPU last', async () => {
  const found = await discoverDevices(sources(ok(rows)));
  assert.deepEqual(toWireDevices(found.devices), [
    {
      index: 0,
      name: 'NVIDIA H100 80GB HBM3',
      kind: 'cuda',
      vram_total_mb: 81559,
      compute_capability: '9.0',
    },
    {
      index: 1,
      name: 'NVIDIA GeForce RTX 4090',
      kind: 'cuda',
      vram_total_mb: 24564,
      compute_capability: '8.9',
    },
    { index: 2, name: 'AMD EPYC', kind: 'cpu', vram_total_mb: 48_000, compute_capability: null },
  ]);
  assert.equal(found.cudaVersion, '12.4');
  assert.equal(found.driverVersion, '550.54.15');
  assert.equal(found.cudaUnavailableReason, null);
  assert.deepEqual(found.health[0], {
    index: 0,
    vram_used_mb: 1024,
    vram_free_mb: 80535,
    utilization_pct: 12,
    temp_c: 41,
  });
  discoverySchema.shape.devices.parse(toWireDevices(found.devices));
  healthSchema.shape.devices.parse(found.health);
});

test('a field that is not available costs that field and nothing else', () => {
  const absent = ['[N/A]', 'N/A', '[Not Supported]', '[Unknown Error]', 'Unknown Error', '', '[GPU is lost]'];
  const fields = ['3', 'GPU', '100', '40', '60', '5', '50', '8.0', '550.1'];
  for (const text of absent) {
    for (let at = 1; at < fields.length; at++) {
      const gpus = parseGpuRows(fields.map((field, i) => (i === at ? text : field)).join(', '));
      assert.equal(gpus.length, 1, `${text} at ${at}`);
      const values = Object.values(gpus[0]!);
      assert.equal(values.filter((value) => value === null).length, at === 1 ? 0 : 1, `${text} at ${at}`);
    }
  }
});

test('a MIG machine, where most fields are not available, still has its device', async () => {
  const row = '0, NVIDIA A100-SXM4-40GB, [N/A], [N/A], [N/A], [N/A], 30, 8.0, 535.104.05';
  const found = await discoverDevices(sources(ok(row)));
  assert.equal(found.devices[0]?.vram_total_mb, 0);
  const merged = mergeBackendDevices(found, [
    backendDevice(0, 'CUDA0', 4864),
    backendDevice(1, 'CPU', 64_000),
  ]);
  assert.equal(merged.devices[0]?.vram_total_mb, 4864);
  assert.equal(merged.health[0]?.vram_free_mb, 4864);
  assert.equal(merged.health[0]?.temp_c, 30);
  assert.equal(merged.devices[0]?.backendIndex, 0);
  assert.equal(merged.devices[1]?.id, 'cpu');
});

test('a machine without nvidia-smi has the CPU as device 0', async () => {
  const found = await discoverDevices(sources(missing));
  assert.deepEqual(
    found.devices.map((device) => [device.index, device.id]),
    [[0, 'cpu']],
  );
  assert.equal(found.cudaUnavailableReason, null);
  assert.deepEqual(found.health[0], {
    index: 0,
    vram_used_mb: 8000,
    vram_free_mb: 40_000,
    utilization_pct: null,
    temp_c: null,
  });
});

test('a driver and library mismatch becomes the reason, with what to do', async () => {
  const text = 'Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54';
  const found = await discoverDevices(sources(failed(18, text)));
  assert.match(found.cudaUnavailableReason ?? '', /mismatch; NVML library version: 550\.54.*reboot/);
  assert.equal(found.devices.length, 1);
});

test('a stuck or failing nvidia-smi is a reason, no devices is none', async () => {
  assert.match(
    (await discoverDevices(sources(stuck))).cudaUnavailableReason ?? '',
    /did not answer within 10 s/,
  );
  const lost = failed(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.");
  assert.match((await discoverDevices(sources(lost))).cudaUnavailableReason ?? '', /communicate/);
  const rubbish = ok(`\u0000\u001b[31m\ufffd\r\n${'x'.repeat(10_000)}`);
  const reason = (await discoverDevices(sources(rubbish))).cudaUnavailableReason ?? '';
  assert.match(reason, /^nvidia-smi's answer names no GPU: \[31m; x{400}/);
  assert.ok(reason.length < 600);
  assert.equal((await discoverDevices(sources(ok('\n')))).cudaUnavailableReason, null);
  const empty = failed(6, 'No devices were found');
  assert.equal((await discoverDevices(sources(empty))).cudaUnavailableReason, null);
});

test('a GPU listed twice, under no index that there can be, or with less than nothing is told by what is true', async () => {
  const broken = `${rows}\n1, twin, 1, 1, 1, 1, 1, 9.0, 1\n99999999999999999999, far, 1, 1, 1, 1, 1, 9.0, 1`;
  const found = await discoverDevices(sources(ok(`${broken}\n2, minus, -1, -1, -1, -1, -1, 9.0, 1`)));
  assert.deepEqual(
    found.devices.map(({ id, vram_total_mb }) => [id, vram_total_mb]),
    [
      ['cuda:0', 81_559],
      ['cuda:1', 24_564],
      ['cuda:2', 0],
      ['cpu', 48_000],
    ],
  );
});

test('a GPU off the bus does not hide the other', async () => {
  const output = `Unable to determine the device handle for GPU0000:01:00.0: Unknown Error\n${rows.split('\n')[1]}`;
  const found = await discoverDevices(sources(failed(15, output)));
  assert.deepEqual(
    found.devices.map((device) => device.id),
    ['cuda:1', 'cpu'],
  );
  assert.deepEqual(
    found.devices.map((device) => device.index),
    [1, 2],
  );
});

test('CUDA_VISIBLE_DEVICES hides devices', async () => {
  const ids = async (visible: string) =>
    (await discoverDevices(sources(ok(rows), ok(header), { CUDA_VISIBLE_DEVICES: visible }))).devices.map(
      (d) => d.id,
    );
  assert.deepEqual(await ids('1'), ['cuda:1', 'cpu']);
  assert.deepEqual(await ids(''), ['cpu']);
  assert.deepEqual(await ids('GPU-0b5c'), ['cuda:0', 'cuda:1', 'cpu']);
});

test('libllama alone can bring a GPU, and one GPU under two backends is one', async () => {
  const bare = await discoverDevices(sources(missing));
  const vulkan = mergeBackendDevices(bare, [
    backendDevice(0, 'Vulkan0', 8192),
    backendDevice(1, 'CPU', 64_000),
  ]);
  assert.deepEqual(
    vulkan.devices.map((d) => [d.index, d.id, d.vram_total_mb]),
    [
      [0, 'vulkan:0', 8192],
      [1, 'cpu', 48_000],
    ],
  );
  assert.deepEqual(
    vulkan.health.map((health) => health.index),
    [0, 1],
  );
  const cuda = await discoverDevices(sources(ok(rows)));
  const both = mergeBackendDevices(cuda, [
    backendDevice(0, 'CUDA0', 81_559),
    backendDevice(1, 'CUDA1', 24_564),
    backendDevice(2, 'Vulkan0', 81_559),
  ]);
  assert.deepEqual(
    both.devices.map((device) => device.id),
    ['cuda:0', 'cuda:1', 'cpu'],
  );
});

test('readDeviceHealth() has nulls for a GPU that is no longer reported', async () => {
  const found = await discoverDevices(sources(ok(rows)));
  const health = await readDeviceHealth(found.devices, sources(failed(15, rows.split('\n')[0]!)));
  assert.deepEqual(
    health?.map((entry) => entry.vram_free_mb),
    [80535, null, 40_000],
  );
});

test('a program that is missing, fails, or outlives its time is reported as such', async () => {
  const run = createRunCommand();
  assert.equal((await run('/nowhere/nvidia-smi', [], 1000)).missing, true);
  assert.equal((await run(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], 50)).timedOut, true);
  assert.deepEqual(await run(process.execPath, ['-e', 'console.log(1); process.exit(6)'], 10_000), {
    exitCode: 6,
    output: '1\n',
    missing: false,
    timedOut: false,
  });
});

test('a program that survives its kill holds nobody up, and no other is started while it is there', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] });
  const ends: (() => void)[] = [];
  const run = createRunCommand((_file, _args, _options, done) => ends.push(() => done(null, 'late', '')));
  const first = run('nvidia-smi', [], 10_000);
  context.mock.timers.tick(11_000);
  assert.equal((await first).timedOut, true);
  assert.equal((await run('nvidia-smi', [], 10_000)).timedOut, true);
  assert.equal(ends.length, 1);
  ends[0]?.();
  const again = run('nvidia-smi', [], 10_000);
  ends[1]?.();
  assert.equal((await again).output, 'late');
});

test('a program for which there is no memory has failed, and is started again', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] });
  let isFull = true;
  const run = createRunCommand((_file, _args, _options, done) => {
    if (isFull) throw Object.assign(new Error('spawn ENOMEM'), { code: 'ENOMEM' });
    done(null, 'back', '');
  });
  const result = await run('nvidia-smi', [], 10_000);
  assert.deepEqual([result.exitCode, result.missing, result.timedOut], [null, false, false]);
  assert.equal(result.output, 'nvidia-smi could not be started: spawn ENOMEM');
  context.mock.timers.tick(20_000);
  isFull = false;
  assert.equal((await run('nvidia-smi', [], 10_000)).output, 'back');
});

describe('DeviceHealthReader', () => {
  const settled = () => new Promise((resolve) => setImmediate(resolve));

  /** `answer`: nvidia-smi ends with so much free on both GPUs. */
  async function setUp() {
    const found = await discoverDevices(sources(ok(rows)));
    const clock = new FakeClock();
    const asked: ((result: CommandResult) => void)[] = [];
    const run = (): Promise<CommandResult> => new Promise((resolve) => asked.push(resolve));
    const reader = new DeviceHealthReader(found, { ...sources(ok(rows)), run }, clock);
    const free = async () => (await reader.read()).map(({ vram_free_mb }) => vram_free_mb);
    const answer = (mb: number) => asked.at(-1)?.(ok(rows.replace('80535', String(mb))));
    return { clock, asked, free, answer };
  }

  test('asks one nvidia-smi for all who came before it, and another for who came since', async () => {
    const { clock, asked, free, answer } = await setUp();
    const first = free();
    const later = [free(), free(), free()];
    assert.equal(asked.length, 1);
    answer(1000);
    assert.deepEqual(await first, [1000, 24_100, 40_000]);
    await settled();
    assert.equal(asked.length, 2);
    answer(2000);
    for (const each of later) assert.deepEqual(await each, [2000, 24_100, 40_000]);
    assert.equal(clock.pending, 0);
  });

  test('has the last figures when nvidia-smi failed or was killed, for a minute, then none', async () => {
    const { clock, asked, free, answer } = await setUp();
    const broken = () => Promise.reject(new Error('a runner that breaks its promise')) as never;
    for (const [at, bad] of [() => stuck, () => failed(9, 'no communication'), broken].entries()) {
      const one = free();
      const next = free();
      asked.at(-1)?.(bad());
      assert.deepEqual(await one, [80_535, 24_100, 40_000]);
      await settled();
      assert.equal(asked.length, 2 * (at + 1));
      asked.at(-1)?.(stuck);
      assert.deepEqual(await next, [80_535, 24_100, 40_000]);
    }
    await clock.advance(60_001);
    const old = free();
    asked.at(-1)?.(stuck);
    assert.deepEqual(await old, [null, null, 40_000]);
    const back = free();
    answer(7);
    assert.deepEqual(await back, [7, 24_100, 40_000]);
  });

  test('has the last figures while nvidia-smi hangs, then none, and the CPU all the while', async () => {
    const { clock, asked, free, answer } = await setUp();
    const waiting = free();
    await clock.advance(3000);
    assert.deepEqual(await waiting, [80_535, 24_100, 40_000]);
    await clock.advance(60_000);
    const old = free();
    await clock.advance(3000);
    assert.deepEqual(await old, [null, null, 40_000]);
    assert.equal(asked.length, 1);
    for (const mb of [5, 6]) {
      answer(mb);
      await settled();
    }
    const back = free();
    answer(7);
    assert.deepEqual(await back, [7, 24_100, 40_000]);
  });
});

function backendDevice(index: number, name: string, totalMb: number): BackendDevice {
  const kind = name === 'CPU' ? 'cpu' : 'gpu';
  return { index, name, description: name, kind, memory: { freeMb: totalMb, totalMb } };
}
