import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { cyclesOf, planDefrag, planRoom, type RoomPlan } from './defrag.ts';
import { needOf } from './eviction.ts';
import type { CatalogueEntry, DeviceView, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { considerNode } from './placement.ts';

const entry = (id: string, vramMb: number, more: Partial<CatalogueEntry> = {}): CatalogueEntry => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  quant: null,
  vramMb,
  minDevices: 1,
  minDeviceVramMb: null,
  pinnedOn: [],
  residencyPriority: 100,
  limit: null,
  cost: null,
  capabilities: [],
  ...more,
});

const loaded = (id: string, device: number, vramMb: number, more: Partial<ModelView> = {}): ModelView => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  status: 'loaded',
  devices: [device],
  vramMb,
  foreignLoad: 0,
  leases: 0,
  lastUsedMs: 1,
  draining: false,
  unservable: null,
  capabilities: [],
  limit: null,
  cost: null,
  toolCall: false,
  reasoning: false,
  ...more,
});

/** Free memory is what the models leave of `totals`. */
function fleet(
  totals: readonly number[],
  models: readonly ModelView[],
  entries: readonly CatalogueEntry[] = [],
  devices: Partial<DeviceView> = {},
): { view: FleetView; node: NodeView } {
  const node: NodeView = {
    name: 'box',
    healthy: true,
    discovered: true,
    harnesses: ['llamacpp'],
    devices: totals.map((totalMb, index) => {
      const here = models.filter((model) => model.devices.includes(index) && model.status === 'loaded');
      const used = here.reduce((total, model) => total + (model.vramMb ?? 0) / model.devices.length, 0);
      return { index, totalMb, freeMb: totalMb - used, kind: 'cuda', ...devices };
    }),
    models: new Map(models.map((model) => [model.id, model])),
    pending: [],
  };
  const catalogue = new Map(entries.map((each) => [each.id, each]));
  return { view: { nodes: [node], catalogue, aliases: new Map(), strategy: 'lru' }, node };
}

function roomFor(
  big: CatalogueEntry,
  totals: readonly number[],
  models: readonly ModelView[],
  evictedMb: number | null = null,
) {
  const { view, node } = fleet(totals, models, [big]);
  return planRoom(view, node, needOf(big.id, big, undefined), evictedMb);
}

function movesOf(decision: ReturnType<typeof planRoom>): string[] {
  assert.equal(decision.kind, 'room', decision.kind === 'none' ? decision.reason : '');
  if (decision.kind !== 'room') return [];
  return decision.plan.moves.map(({ model, from, to }) => `${model} ${from}>${to}`);
}

function reasonOf(decision: ReturnType<typeof planRoom>): string {
  return decision.kind === 'none' ? decision.reason : `a plan: ${JSON.stringify(decision.plan)}`;
}

describe('planRoom()', () => {
  const two = [loaded('a', 0, 400), loaded('b', 1, 300)];

  test('moves the smaller of two models together with the larger', () => {
    assert.deepEqual(movesOf(roomFor(entry('big', 900), [1000, 1000], two)), ['b 1>0']);
  });

  test('says why there is no plan: it fits, or even all of the node is too small', () => {
    assert.match(reasonOf(roomFor(entry('big', 600), [1000, 1000], two)), /fits as it is/);
    assert.match(reasonOf(roomFor(entry('big', 1400), [1000, 1000], two)), /only 1300 MiB are free/);
  });

  test('a third device is used as the place where a swap begins', () => {
    // b fits only where c is, and c fits only on device 2: two moves, the second into the first one's place
    const models = [loaded('b', 0, 500), loaded('c', 1, 200)];
    assert.deepEqual(movesOf(roomFor(entry('big', 1000), [1000, 600, 300], models)), ['c 1>2', 'b 0>1']);
  });

  test('what is leased, polled as busy, draining, pinned or wanted stays', () => {
    for (const more of [{ leases: 1 }, { foreignLoad: 1 }, { draining: true }]) {
      const models = [loaded('a', 0, 400, more), loaded('b', 1, 300, more)];
      assert.match(reasonOf(roomFor(entry('big', 900), [1000, 1000], models)), /no move/);
    }
    const pinned = fleet(
      [1000, 1000],
      two,
      ['a', 'b'].map((id) => entry(id, 300, { pinnedOn: ['box'] })),
    );
    const need = needOf('big', entry('big', 900), undefined);
    assert.match(reasonOf(planRoom(pinned.view, pinned.node, need, null)), /no move/);
  });

  test('a model does not move to a device of another kind, nor to one too small for it', () => {
    const { view, node } = fleet([1000, 1000], two);
    const mixed = { ...node, devices: node.devices.map((d) => (d.index === 0 ? { ...d, kind: 'cpu' } : d)) };
    const need = needOf('big', entry('big', 900), undefined);
    assert.match(reasonOf(planRoom(view, mixed, need, null)), /no move/);
    const rows = ['a', 'b'].map((id) => entry(id, 300, { minDeviceVramMb: 2000 }));
    const small = fleet([1000, 1000], two, rows);
    assert.match(reasonOf(planRoom(small.view, small.node, need, null)), /no move/);
  });

  test('a move that costs more than the eviction it spares is not made', () => {
    assert.match(reasonOf(roomFor(entry('big', 900), [1000, 1000], two, 200)), /does not pay/);
    assert.deepEqual(movesOf(roomFor(entry('big', 900), [1000, 1000], two, 300)), ['b 1>0']);
  });

  test('after a failed move none is planned', () => {
    const { view, node } = fleet([1000, 1000], two);
    const need = needOf('big', entry('big', 900), undefined);
    assert.match(reasonOf(planRoom(view, { ...node, movesFail: true }, need, null)), /failed a short while/);
  });

  test('a model of two devices gets room on the two that are freest together', () => {
    const models = [loaded('a', 0, 300), loaded('b', 1, 300), loaded('c', 2, 300)];
    const decision = roomFor(entry('wide', 1800, { minDevices: 2 }), [1000, 1000, 1000], models);
    assert.equal(movesOf(decision).length, 2);
    assert.equal(decision.kind === 'room' && decision.plan.devices.length, 2);
  });

  test('random nodes: no step overfills a device, nothing that must stay moves, it ends with room', () => {
    const random = new SeededRandom();
    console.log(`TEST_SEED=${random.seed}`);
    let plans = 0;
    for (let round = 0; round < 2000; round++) {
      const { big, totals, models } = randomNode(random, 4, 7);
      const decision = roomFor(big, totals, models);
      if (decision.kind === 'none') continue;
      plans++;
      checkPlan(decision.plan, big, totals, models, `TEST_SEED=${random.seed}, round ${round}`);
    }
    assert.ok(plans > 50, `${plans} plans: the random nodes test nothing`);
  });

  test('small nodes: no other sequence of moves is cheaper, and where there is one it is found', () => {
    const random = new SeededRandom();
    console.log(`TEST_SEED=${random.seed}`);
    for (let round = 0; round < 400; round++) {
      const { big, totals, models } = randomNode(random, 3, 4);
      const decision = roomFor(big, totals, models);
      const free = freeOf(totals, models);
      if (Math.max(...free) >= (big.vramMb ?? 0)) continue;
      const least = leastMoved(free, models.filter(mayMove), big.vramMb ?? 0);
      const where = `TEST_SEED=${random.seed}, round ${round}: ${reasonOf(decision)}`;
      assert.equal(decision.kind === 'room' ? decision.plan.movedMb : null, least, where);
    }
  });
});

describe('planDefrag()', () => {
  const two = [loaded('a', 0, 400), loaded('b', 1, 300)];

  test('picks the largest model that only fragments keep out', () => {
    const { view, node } = fleet([1000, 1000], two, [
      entry('big', 900),
      entry('mid', 800),
      entry('huge', 2000),
    ]);
    const plan = planDefrag(view, node, { model: null, wornAfter: 50 });
    assert.deepEqual([plan.makesRoomFor, plan.moves.length, plan.movedMb], ['big', 1, 300]);
  });

  test('does nothing, and says so, where nothing is kept out and no device is worn', () => {
    const { view, node } = fleet([1000, 1000], two, [entry('mid', 500)]);
    const plan = planDefrag(view, node, { model: null, wornAfter: 50 });
    assert.deepEqual([plan.moves, plan.recycle], [[], []]);
    assert.match(plan.why, /no model is kept out by fragments/);
  });

  test('gives a fresh owner to worn devices alone, with the models that are there', () => {
    const { view, node } = fleet([1000, 1000], two, [], { loadCycles: 30 });
    assert.equal(cyclesOf(node), 60);
    assert.deepEqual(planDefrag(view, node, { model: null, wornAfter: 31 }).recycle, []);
    const [first, second] = planDefrag(view, node, { model: null, wornAfter: 30 }).recycle;
    assert.deepEqual([first?.models, second?.models], [['a'], ['b']]);
    assert.match(first?.why ?? '', /30 models were unloaded/);
  });
});

describe('considerNode() with fragments', () => {
  test('moves rather than evicts, and moves where nothing may be evicted', () => {
    const models = [loaded('a', 0, 400), loaded('b', 1, 300)];
    for (const priority of [100, 1000]) {
      const rows = [
        entry('big', 900),
        ...['a', 'b'].map((id) => entry(id, 300, { residencyPriority: priority })),
      ];
      const { view, node } = fleet([1000, 1000], models, rows);
      const found = considerNode(view, node, 'big');
      assert.ok('placement' in found, JSON.stringify(found));
      assert.deepEqual(found.placement.evict, []);
      assert.deepEqual(
        found.placement.moves?.map(({ model }) => model),
        ['b'],
      );
      assert.deepEqual(found.placement.spec.devices, [1]);
    }
  });
});

test('a node with GPUs uses its CPU only for what no GPU can ever hold', () => {
  const rows = [entry('mid', 900), entry('huge', 5000)];
  const { view, node } = fleet([1000, 1000, 9000], [loaded('a', 0, 400), loaded('b', 1, 300)], rows);
  const mixed = { ...node, devices: node.devices.map((d) => (d.index === 2 ? { ...d, kind: 'cpu' } : d)) };
  const placed = (model: string) => {
    const found = considerNode(view, mixed, model);
    return 'placement' in found ? [found.placement.spec.devices, found.placement.moves?.length ?? 0] : found;
  };
  assert.deepEqual(placed('mid'), [[1], 1]);
  assert.deepEqual(placed('huge'), [[2], 0]);
  assert.equal(planDefrag(view, mixed, { model: null, wornAfter: 9 }).makesRoomFor, 'mid');
});

function randomNode(random: SeededRandom, devicesMax: number, modelsMax: number) {
  const totals = Array.from({ length: random.int(2, devicesMax) }, () => random.int(4, 12) * 100);
  const models: ModelView[] = [];
  for (let i = random.int(1, modelsMax); i > 0; i--) {
    const device = random.int(0, totals.length - 1);
    const left = freeOf(totals, models)[device] ?? 0;
    const mb = random.int(1, 5) * 100;
    if (mb > left) continue;
    models.push(loaded(`m${i}`, device, mb, random.chance(0.2) ? { leases: 1 } : {}));
  }
  return { big: entry('big', random.int(3, 12) * 100), totals, models };
}

function freeOf(totals: readonly number[], models: readonly ModelView[]): number[] {
  return totals.map((total, index) =>
    models.reduce((left, model) => left - (model.devices[0] === index ? (model.vramMb ?? 0) : 0), total),
  );
}

function mayMove(model: ModelView): boolean {
  return model.leases === 0;
}

function checkPlan(
  plan: RoomPlan,
  big: CatalogueEntry,
  totals: readonly number[],
  models: readonly ModelView[],
  where: string,
): void {
  const at = new Map(models.map((model) => [model.id, model.devices[0] ?? 0]));
  const free = freeOf(totals, models);
  for (const { model, from, to, vramMb } of plan.moves) {
    const held = models.find((each) => each.id === model);
    assert.ok(held !== undefined && mayMove(held), `${where}: ${model} must stay`);
    assert.deepEqual([at.get(model), held.vramMb], [from, vramMb], where);
    free[to] = (free[to] ?? 0) - vramMb;
    // both hold it while it moves
    assert.ok(
      free.every((mb) => mb >= 0),
      `${where}: ${JSON.stringify(plan)} overfills ${free}`,
    );
    free[from] = (free[from] ?? 0) + vramMb;
    at.set(model, to);
  }
  assert.ok(Math.max(...free) >= (big.vramMb ?? 0), `${where}: no room in ${free}`);
}

/** By trying all positions, cheapest first, without a bound of any kind. */
function leastMoved(free: readonly number[], models: readonly ModelView[], needMb: number): number | null {
  const start = models.map((model) => model.devices[0] ?? 0);
  const best = new Map([[start.join(), 0]]);
  const open = [{ at: start, free: [...free], moved: 0 }];
  let least: number | null = null;
  for (let state = open.pop(); state !== undefined; state = open.pop()) {
    if (Math.max(...state.free) >= needMb) least = Math.min(least ?? state.moved, state.moved);
    for (const [i, model] of models.entries()) {
      for (const to of free.keys()) {
        const from = state.at[i] ?? 0;
        const mb = model.vramMb ?? 0;
        const moved = state.moved + mb;
        if (to === from || (state.free[to] ?? 0) < mb) continue;
        const at = state.at.with(i, to);
        if ((best.get(at.join()) ?? Number.POSITIVE_INFINITY) <= moved) continue;
        best.set(at.join(), moved);
        open.push({
          at,
          moved,
          free: state.free.map((left, d) => left + (d === from ? mb : 0) - (d === to ? mb : 0)),
        });
      }
    }
  }
  return least;
}
