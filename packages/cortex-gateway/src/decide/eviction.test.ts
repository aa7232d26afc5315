import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { entryOf, nodeOf, residentOf, viewOf } from './eviction.test.kit.ts';
import { needOf, planFit } from './eviction.ts';
import type { EvictionStrategy, EvictionTerms, FleetView, ModelView } from './fleet-view.ts';
import { RateBook } from './rate-book.ts';
import { costOf } from './victim-cost.ts';

const hour = 3_600_000;
const terms = (more: Partial<EvictionTerms> = {}): EvictionTerms => ({
  nowMs: 10 * hour,
  gapMs: () => null,
  ...more,
});
const idleFor = (ms: number): { readonly lastUsedMs: number } => ({ lastUsedMs: 10 * hour - ms });

const plan = (view: FleetView, id: string, spared?: ReadonlySet<string>) =>
  planFit(view, view.nodes[0]!, needOf(id, view.catalogue.get(id), undefined), spared);
const victims = (view: FleetView, id: string, spared?: ReadonlySet<string>): string[] | string => {
  const fit = plan(view, id, spared);
  return fit.ok ? fit.evict.map((victim) => victim.model) : fit.reason;
};

describe('cost', () => {
  test('lets one big idle model go rather than three small ones in use every minute', () => {
    const hot = ['s1', 's2', 's3'].map((id) => residentOf(id, { vramMb: 1000, ...idleFor(60_000) }));
    const big = residentOf('big', { vramMb: 3000, ...idleFor(2 * hour) });
    const view = viewOf([nodeOf('n', [[6000, 0]], [...hot, big])], [entryOf('new', { vramMb: 3000 })], {
      strategy: 'cost',
      terms: terms(),
    });
    assert.deepEqual(victims(view, 'new'), ['big']);
  });

  test('keeps what takes long to load, although it was used longer ago', () => {
    const slow = residentOf('slow', idleFor(10 * 60_000));
    const quick = residentOf('quick', idleFor(9 * 60_000));
    const nodes = [nodeOf('n', [[2000, 0]], [slow, quick])];
    const rates = new RateBook();
    rates.note('n', 'slow', 'loadMs', 200_000);
    rates.note('n', 'quick', 'loadMs', 5000);
    const view = (strategy: EvictionStrategy) =>
      viewOf(nodes, [entryOf('new')], { strategy, terms: terms(), rates });
    assert.deepEqual(victims(view('cost'), 'new'), ['quick']);
    assert.deepEqual(victims(view('lru'), 'new'), ['slow']);
  });

  test('keeps what is used every few seconds rather than what is used once an hour', () => {
    const often = residentOf('often', idleFor(4000));
    const seldom = residentOf('seldom', idleFor(3000));
    const view = viewOf([nodeOf('n', [[2000, 0]], [often, seldom])], [entryOf('new')], {
      strategy: 'cost',
      terms: terms({ gapMs: (_, model) => (model === 'often' ? 5000 : hour) }),
    });
    assert.deepEqual(victims(view, 'new'), ['seldom']);
  });

  test('finds the cheapest set that makes enough room, as trying all of them does', () => {
    const random = new SeededRandom();
    const { seed } = random;
    console.log(`TEST_SEED=${seed}`);
    for (let round = 0; round < 150; round++) {
      const count = 1 + random.int(0, 8);
      const deviceCount = 1 + random.int(0, 2);
      const models = Array.from({ length: count }, (_, i) => {
        const first = random.int(0, deviceCount - 1);
        const devices = random.chance(0.3) ? Array.from({ length: deviceCount }, (_, d) => d) : [first];
        return residentOf(`m${i}`, {
          vramMb: 100 + random.int(0, 2999),
          devices,
          leases: random.chance(0.2) ? 1 : 0,
          ...idleFor(random.int(0, hour - 1)),
        });
      });
      const devices = Array.from({ length: deviceCount }, () => [20_000, random.int(0, 499)] as const);
      const need = entryOf('new', {
        vramMb: 500 + random.int(0, 3999),
        minDevices: 1 + random.int(0, deviceCount - 1),
      });
      const view = viewOf([nodeOf('n', devices, models)], [need], { strategy: 'cost', terms: terms() });
      const node = view.nodes[0]!;
      const got = plan(view, 'new');
      const sets = Array.from({ length: 2 ** count }, (_, bits) =>
        models.filter((_, i) => (bits >> i) & 1),
      ).filter((set) => fitsWithout(view, set));
      if (!got.ok) {
        assert.equal(sets.length, 0, `seed ${seed} round ${round}: ${got.reason}`);
        continue;
      }
      const chosen = models.filter((model) => got.evict.some((victim) => victim.model === model.id));
      const least = Math.min(...sets.map((set) => costOf(view, node, set)));
      assert.ok(fitsWithout(view, chosen), `seed ${seed} round ${round}: it does not fit`);
      assert.ok(
        Math.abs(costOf(view, node, chosen) - least) <= 1e-9 * (1 + least),
        `seed ${seed} round ${round}`,
      );
    }
  });

  test('plans for forty residents without trying every set', () => {
    const models = Array.from({ length: 40 }, (_, i) =>
      residentOf(`m${i}`, { vramMb: 500 + i, ...idleFor(1000 * (i + 1)) }),
    );
    const view = viewOf([nodeOf('n', [[40_000, 0]], models)], [entryOf('new', { vramMb: 9000 })], {
      strategy: 'cost',
      terms: terms(),
    });
    const chosen = victims(view, 'new');
    assert.ok(Array.isArray(chosen) && chosen.length < 20);
    for (const spare of chosen) {
      const rest = models.filter((model) => chosen.includes(model.id) && model.id !== spare);
      assert.ok(!fitsWithout(view, rest), `${spare} left for nothing`);
    }
  });
});

describe('legal victims', () => {
  test('a pinned model never leaves, also not for one that is pinned as well', () => {
    const pinned = { pinnedOn: ['n'], residencyPriority: 1000 };
    const view = viewOf(
      [nodeOf('n', [[2000, 0]], [residentOf('kept', { vramMb: 2000 })])],
      [entryOf('kept', pinned), entryOf('new', pinned)],
    );
    assert.match(String(victims(view, 'new')), /kept may not be displaced/);
  });

  test('a model pinned with a lower rank of its own may leave: its entry says so', () => {
    const view = viewOf(
      [nodeOf('n', [[1000, 0]], [residentOf('placed')])],
      [entryOf('placed', { pinnedOn: ['n'], residencyPriority: 100 }), entryOf('new')],
    );
    assert.deepEqual(victims(view, 'new'), ['placed']);
  });

  test('a lower rank never displaces a higher one, an equal one does', () => {
    const nodes = [nodeOf('n', [[1000, 0]], [residentOf('there')])];
    for (const strategy of ['lru', 'priority', 'cost'] as const) {
      const at = (rank: number) =>
        viewOf(nodes, [entryOf('there'), entryOf('new', { residencyPriority: rank })], { strategy });
      assert.match(String(victims(at(99), 'new')), /there may not be displaced/);
      assert.deepEqual(victims(at(100), 'new'), ['there']);
    }
  });

  test('what is loading may leave later and what is leaving counts as gone: nobody is refused for them', () => {
    const loading = viewOf(
      [nodeOf('n', [[1000, 0]], [residentOf('x', { status: 'loading' })])],
      [entryOf('new')],
    );
    assert.deepEqual(victims(loading, 'new'), ['x']);
    const leaving = viewOf(
      [nodeOf('n', [[1000, 0]], [residentOf('x', { status: 'unloading' })])],
      [entryOf('new')],
    );
    assert.deepEqual(victims(leaving, 'new'), []);
    const unread = viewOf(
      [nodeOf('n', [[1000, null]], [residentOf('x', { status: 'unloading' })])],
      [entryOf('new')],
    );
    assert.deepEqual(victims(unread, 'new'), []);
  });

  test('who did not drain in time is spared when the plan is made again', () => {
    const models = [residentOf('stuck', { lastUsedMs: 1 }), residentOf('other', { lastUsedMs: 2 })];
    const view = viewOf([nodeOf('n', [[2000, 0]], models)], [entryOf('new')]);
    assert.deepEqual(victims(view, 'new'), ['stuck']);
    assert.deepEqual(victims(view, 'new', new Set(['stuck'])), ['other']);
    assert.match(String(victims(view, 'new', new Set(['stuck', 'other']))), /can free at most 0 MiB/);
  });
});

/** Whether the newcomer fits when those have left: an own count, device by device. */
function fitsWithout(view: FleetView, set: readonly ModelView[]): boolean {
  const node = view.nodes[0]!;
  const need = view.catalogue.get('new')!;
  const free = node.devices.map((device) => {
    const freed = set.filter((model) => model.devices.includes(device.index));
    return device.freeMb! + freed.reduce((mb, model) => mb + model.vramMb! / model.devices.length, 0);
  });
  const freest = free.sort((a, b) => b - a).slice(0, need.minDevices);
  return freest.reduce((mb, each) => mb + each, 0) >= need.vramMb! - 1e-6;
}
