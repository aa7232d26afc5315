import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { FleetIndex } from './fleet-index.ts';
import type { FleetView, NodeView } from './fleet-view.ts';
import { type NodeSketch, toFleetView } from './to-fleet-view.ts';

const catalogue = ['m0', 'm1', 'm2', 'm3'].map((id, i) => ({
  id,
  vramMb: 500 * (i + 1),
  residencyPriority: [100, 50, 1000, 100][i] ?? 100,
}));

const build = (nodes: readonly NodeSketch[]): FleetView => toFleetView({ nodes, catalogue });

/** Everything a decision reads, in a form that can be compared. */
function snapshot(index: FleetIndex) {
  const slots = (of: (model: string) => readonly number[]) =>
    Object.fromEntries(catalogue.map(({ id }) => [id, [...of(id)].sort()]));
  return {
    resident: slots((id) => index.replicasOf(id)?.slots ?? []),
    present: slots((id) => index.presentSlots(id)),
    able: [...index.able, index.healthyCount],
    numbers: [
      index.freeMb,
      index.totalMb,
      index.kthTotalMb,
      index.reclaimMb,
      index.largestMb,
      index.idlestMs,
      index.jobs,
    ].map((column) => [...column]),
  };
}

describe('FleetIndex', () => {
  test('kept up to date it says what one made anew says', () => {
    const random = new SeededRandom();
    const sketch = (name: string): NodeSketch => ({
      name,
      healthy: random.chance(0.8),
      devices: Array.from({ length: random.int(0, 2) }, () => ({
        totalMb: 4000,
        freeMb: random.chance(0.3) ? null : random.int(0, 3999),
      })),
      models: catalogue
        .filter(() => random.chance(0.5))
        .map(({ id }) => ({
          id,
          status: random.pick(['loaded', 'available', 'loading', 'failed', 'recovering'] as const),
          lastUsedMs: random.pick([null, 5, 10]),
        })),
      pending: random.chance(0.3) ? [random.pick(['m0', 'm3'])] : [],
    });
    const names = ['a', 'b', 'c'];
    const live = build(names.map(sketch)).index as FleetIndex;
    for (let step = 0; step < 300; step++) {
      const name = random.pick(names);
      const next = build([sketch(name)]).nodes[0] as NodeView;
      live.update(live.slotOf(name) ?? -1, next);
      const fresh = new FleetIndex(live.nodes, build([]));
      assert.deepEqual(snapshot(live), snapshot(fresh), `step ${step}; TEST_SEED=${random.seed}`);
    }
  });

  test('counts the freest devices, missing readings by what is resident, and what each rank may displace', () => {
    const { index } = build([
      {
        name: 'a',
        devices: [4000, { totalMb: 2000, freeMb: 1500 }],
        models: [{ id: 'm1' }, { id: 'm2', devices: [1] }],
      },
    ]);
    assert.ok(index);
    assert.deepEqual([...index.freeMb.slice(0, 3)], [3000, 4500, 4500]);
    assert.deepEqual([...index.totalMb.slice(0, 3)], [4000, 6000, 6000]);
    assert.deepEqual(index.ranks, [50, 100, 1000]);
    assert.deepEqual([...index.reclaimMb], [1000, 1000, 2500]);
    assert.equal(index.rankColumn(70), 1);
    assert.equal(index.rankColumn(9999), 2);
  });
});
