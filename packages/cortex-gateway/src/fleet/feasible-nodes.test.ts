import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { considerNode } from '../decide/placement.ts';
import { randomFleet } from '../decide/random-fleet.test.kit.ts';
import { toFleetView } from '../decide/to-fleet-view.ts';
import { FeasibleNodes } from './feasible-nodes.ts';

test('FeasibleNodes names the nodes that have a model or for which there is a plan, over random fleets', () => {
  const random = new SeededRandom();
  for (let i = 0; i < 400; i++) {
    const view = toFleetView(randomFleet(random, 8));
    const feasible = new FeasibleNodes(view);
    for (const model of ['m0', 'm1', 'm2', 'm3', 'm4', 'm5', 'unknown']) {
      const nodes = view.nodes.filter(
        (node) =>
          node.models.get(model)?.status === 'loaded' || !('reason' in considerNode(view, node, model)),
      );
      assert.deepEqual(
        feasible.of(model),
        nodes.map(({ name }) => name),
        `TEST_SEED=${random.seed}, fleet ${i}, ${model}`,
      );
    }
  }
});

test('FeasibleNodes names a node also while a failed load keeps the model from evicting there', () => {
  const failedLoads = new Map(['on-disk', 'known'].map((id) => [id, 'its load failed']));
  const held = [
    { id: 'old', status: 'loaded', vramMb: 1000 },
    { id: 'on-disk', status: 'available', vramMb: 1000 },
  ] as const;
  const view = toFleetView({
    nodes: [{ name: 'n', devices: [1000], models: held, failedLoads }],
    catalogue: ['old', 'on-disk', 'known'].map((id) => ({ id, vramMb: 1000 })),
  });
  const feasible = new FeasibleNodes(view);
  assert.deepEqual([feasible.of('on-disk'), feasible.of('known')], [['n'], ['n']]);
});

test('FeasibleNodes makes no plan for models that no node has', () => {
  const models = Array.from({ length: 200 }, (_, i) => ({ id: `m${i}`, vramMb: 1000 + i }));
  const nodes = Array.from({ length: 50 }, (_, i) => ({ name: `n${100 + i}`, devices: [1100] }));
  const view = toFleetView({ nodes, catalogue: models });
  let looks = 0;
  const counted = view.nodes.map(
    (node) =>
      new Proxy(node, {
        get: (target, key) => {
          if (key === 'devices') looks++;
          return Reflect.get(target, key);
        },
      }),
  );
  const feasible = new FeasibleNodes({ ...view, nodes: counted });
  const named = models.map(({ id }) => feasible.of(id).length);
  assert.deepEqual([named[0], named[100], named[101]], [50, 50, 0]);
  // a plan reads the devices several times: for 200 models on 50 nodes more than 10,000 looks
  assert.ok(looks <= nodes.length * 10, `${looks} looks at devices`);
});
