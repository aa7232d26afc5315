/**
 * The promise of docs/scheduling.md, held against the fleet itself: its waiting line, turns, drains and loads,
 * on a clock of the test's own, over a neuron that is a few lines here so that no socket takes time. (The
 * simulator's own line is held against it in simulate/simulation.test.ts.)
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { FakeClock } from 'testkit/clock';
import { SeededRandom } from 'testkit/seeded-random';
import type { TurnRules } from '../decide/turns.ts';
import { waitBoundMs } from '../decide/wait-bound.ts';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import { toCatalogue } from './catalogue.ts';
import { Fleet } from './fleet.ts';
import type { FleetEvent } from './lifecycle-deps.ts';

const deviceMb = 24_000;
const unloadMs = 500;

/** A neuron with one device whose loads and unloads take a time of its own; it always answers at once. */
class TimedNeuron {
  readonly name = 'n';
  readonly #clock: FakeClock;
  readonly #loadMs: ReadonlyMap<string, number>;
  readonly #sizesMb: ReadonlyMap<string, number>;
  readonly #slots: number;
  readonly #loaded = new Set<string>();

  constructor(
    clock: FakeClock,
    slots: number,
    models: readonly { readonly id: string; readonly mb: number; readonly loadMs: number }[],
  ) {
    this.#clock = clock;
    this.#slots = slots;
    this.#loadMs = new Map(models.map(({ id, loadMs }) => [id, loadMs]));
    this.#sizesMb = new Map(models.map(({ id, mb }) => [id, mb]));
  }

  async getJson(path: string): Promise<unknown> {
    if (path === '/models') return [...this.#sizesMb].map(([id, mb]) => this.#row(id, mb));
    return path === '/health' ? this.#health() : this.#discovery();
  }

  async postJson(path: string, body: { readonly model_id: string }) {
    const { model_id: id } = body;
    const isLoad = path === '/models/load';
    await this.#clock.sleep(isLoad ? (this.#loadMs.get(id) ?? 0) : unloadMs);
    if (isLoad) this.#loaded.add(id);
    else this.#loaded.delete(id);
    assert.ok(this.#freeMb() >= 0, 'two models that exclude each other are loaded');
    return { status: 200, body: {} };
  }

  async close(): Promise<void> {}

  #freeMb(): number {
    return [...this.#loaded].reduce((free, id) => free - (this.#sizesMb.get(id) ?? 0), deviceMb);
  }

  #row(id: string, mb: number): unknown {
    const isLoaded = this.#loaded.has(id);
    const status = isLoaded ? 'loaded' : 'available';
    return {
      ...{ id, harness: 'llamacpp', status, devices: isLoaded ? [0] : [] },
      ...{ vram_used_mb: isLoaded ? mb : null, vram_estimate_mb: mb, tool_call: false, reasoning: false },
    };
  }

  #health(): unknown {
    const free = this.#freeMb();
    const load = { in_flight: 0, queue_depth: 0, max_in_flight: this.#slots, max_queue_depth: 0 };
    const reading = {
      vram_used_mb: deviceMb - free,
      vram_free_mb: free,
      utilization_pct: null,
      temp_c: null,
    };
    return {
      uptime_secs: 1,
      devices: [{ index: 0, ...reading }],
      activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
      models: [...this.#loaded].map((id) => ({ id, ...load })),
      loading: [],
    };
  }

  #discovery(): unknown {
    return {
      ...{ hostname: 'n', os: 'linux', kernel: '0', cuda_version: null, driver_version: null },
      devices: [{ index: 0, name: 'gpu', kind: 'cuda', vram_total_mb: deviceMb }],
      harnesses: ['llamacpp'],
      ...{ package_version: '0', wire_version: 1 },
    };
  }
}

interface Served {
  readonly waitMs: number;
  readonly ahead: number;
}

test('over random arrivals no request waits longer than the bound, and swaps stay below their count', async () => {
  const random = new SeededRandom();
  console.log(`TEST_SEED=${random.seed}`);
  for (let round = 0; round < 30; round++) {
    const contest = randomContest(random);
    const { served, swaps, endMs } = await run(contest);
    const where = `TEST_SEED=${random.seed} round ${round}`;
    assert.equal(served.length, contest.requests.length, `${where}: somebody was never served`);
    for (const { waitMs, ahead } of served) {
      // timers are set in whole milliseconds
      const boundMs = Math.ceil(waitBoundMs({ ...contest.bound, ahead })) + 1;
      assert.ok(
        waitMs <= boundMs,
        `${where}: waited ${waitMs} ms with ${ahead} ahead, the bound is ${boundMs}`,
      );
    }
    const waited = served.filter(({ waitMs }) => waitMs > 0).length;
    assert.ok(swaps.length <= waited, `${where}: ${swaps.length} swaps for ${waited} that waited`);
    const due = swaps.filter((reason) => reason === 'due').length;
    const most = 1 + Math.floor(endMs / contest.apartMs);
    assert.ok(due <= most, `${where}: ${due} due swaps, at most ${most}`);
  }
});

type Contest = ReturnType<typeof randomContest>;

/**
 * Models of which one at a time fits. In half of the contests nearly all requests are for one of them, at about
 * the pace at which it answers: it is never idle, and the others have to get their turn all the same.
 */
function randomContest(random: SeededRandom) {
  const models = Array.from({ length: random.int(2, 4) }, (_, i) => {
    return { id: `m${i}`, mb: random.int(12_500, 23_500), loadMs: random.int(3000, 40_000) };
  });
  const slots = random.int(1, 4);
  const count = random.int(20, 160);
  const longestMs = random.int(500, 20_000);
  const hasFavourite = random.chance(0.5);
  const paceMs = Math.round((count * longestMs) / 2 / slots);
  const span = hasFavourite ? paceMs : random.int(30_000, 900_000);
  const requests = Array.from({ length: count }, () => ({
    model: hasFavourite && random.chance(0.95) ? 'm0' : random.pick(models).id,
    atMs: random.int(0, span),
    serviceMs: random.int(200, longestMs),
    asker: {
      key: `k${random.int(0, 2)}`,
      session: `s${random.int(0, 2)}`,
      priority: random.int(-3, 3),
    },
  }));
  const rules: TurnRules = {
    maxWaitMs: random.int(0, random.chance(0.5) ? 2000 : 90_000),
    residencyFactor: random.next() * 2,
    residencyMaxMs: random.int(0, 40_000),
  };
  const loads = models.map(({ loadMs }) => loadMs);
  const stays = loads.map((ms) => Math.min(ms * rules.residencyFactor, rules.residencyMaxMs));
  return {
    ...{ models, requests, rules, slots },
    bound: {
      ...{ maxWaitMs: rules.maxWaitMs, models: models.length, slots },
      loadMs: Math.max(...loads) + unloadMs,
      residencyMs: Math.max(...stays),
      serviceMs: Math.max(...requests.map(({ serviceMs }) => serviceMs)),
    },
    apartMs: Math.min(...stays) + Math.min(...loads),
  };
}

async function run({ models, requests, rules, slots }: Contest) {
  const clock = new FakeClock();
  const swaps: string[] = [];
  const fleet = createFleet(clock, new TimedNeuron(clock, slots, models), rules, (event) => {
    if (event.kind === 'swapped') swaps.push(event.reason);
  });
  await fleet.start();
  const served: Served[] = [];
  const { signal } = new AbortController();
  const arrive = async ({ model, serviceMs, asker }: Contest['requests'][number]): Promise<void> => {
    const sinceMs = clock.monotonicMs();
    const ahead = fleet.waitingCount;
    const lease = await fleet.request({ model, promptTokens: 100, asker }, signal).ready;
    served.push({ waitMs: clock.monotonicMs() - sinceMs, ahead });
    clock.setTimer(serviceMs, () => lease.release());
  };
  const failures: unknown[] = [];
  for (const request of requests) {
    clock.setTimer(request.atMs, () => void arrive(request).catch((cause) => failures.push(cause)));
  }
  let endMs = 0;
  for (let minutes = 0; minutes < 600 && served.length + failures.length < requests.length; minutes++) {
    await clock.advance(60_000);
    endMs = clock.monotonicMs();
  }
  await fleet.close();
  assert.deepEqual(failures, []);
  return { served, swaps, endMs };
}

function createFleet(
  clock: FakeClock,
  neuron: TimedNeuron,
  turns: TurnRules,
  onEvent: (event: FleetEvent) => void,
): Fleet {
  return new Fleet({
    settings: {
      nodes: [{ name: 'n', endpoint: 'http://n' }],
      catalogue: toCatalogue(modelsConfigSchema.parse({})),
      strategy: 'lru',
      ...{ pollIntervalMs: 10_000, pollTimeoutMs: 5000, missesMax: 3, failuresMax: 0 },
      ...{ defragAfterCycles: 0, loadTimeoutMs: 60_000, waitersMax: 1000, turns },
      drain: { timeoutMs: 120_000, cutAfter: false },
      ttlMs: () => null,
    },
    connect: () => neuron as unknown as NeuronClient,
    ...{ clock, log: silentLog, onEvent },
  });
}
