import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NeuronConfig, neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { type LocalNodesWish, planLocalNodes } from './local-nodes.ts';

const machine = { memoryMb: 16_000, cpus: 8 };

function configOf(more: object = {}): NeuronConfig {
  return neuronConfigSchema.parse({ state_dir: '/state', ...more });
}

function plan(wish: LocalNodesWish, config = configOf(), required: readonly string[] = []) {
  return planLocalNodes(wish, config, required, machine);
}

test('one node is the configuration as it stands, with the memory that was asked for', () => {
  const config = configOf();
  assert.deepEqual(plan({}, config), [{ name: null, config, logName: 'neuron.log' }]);
  assert.equal(plan({ memoryMb: 512 })[0]?.config.cpu.memory_mb, 512);
  assert.equal(plan({ budgets: [300] })[0]?.config.cpu.memory_mb, 300);
});

test('three nodes have ports, names, state directories and memory of their own', () => {
  const nodes = plan({ nodes: 3 });
  assert.deepEqual(
    nodes.map(({ name }) => name),
    ['node1', 'node2', 'node3'],
  );
  assert.deepEqual(
    nodes.map(({ config }) => config.port),
    [13131, 13132, 13133],
  );
  assert.deepEqual(
    nodes.map(({ config }) => config.state_dir),
    ['/state/node1', '/state/node2', '/state/node3'],
  );
  const sizes = nodes.map(({ config }) => config.cpu.memory_mb ?? 0);
  assert.deepEqual(sizes, [1714, 3428, 6857]);
  assert.ok(sizes.reduce((total, mb) => total + mb, 0) <= 12_000);
  assert.deepEqual(
    plan({ nodes: 2, memoryMb: 900 }).map(({ config }) => config.cpu.memory_mb),
    [300, 600],
  );
  assert.deepEqual(
    plan({ nodes: 2 }, configOf({ port: 0 })).map(({ config }) => config.port),
    [0, 0],
  );
});

test('--budgets alone says how many there are', () => {
  assert.deepEqual(
    plan({ budgets: [200, 400, 800] }).map(({ config }) => config.cpu.memory_mb),
    [200, 400, 800],
  );
});

test('they share the cores, and no GPU that each would take for its own', () => {
  const [node] = plan({ nodes: 3 });
  assert.deepEqual([node?.config.engine.threads, node?.config.engine.libllama], [2, 'cpu']);
  const [told] = plan({ nodes: 3 }, configOf({ engine: { threads: 5, libllama: 'vulkan' } }));
  assert.deepEqual([told?.config.engine.threads, told?.config.engine.libllama], [5, 'vulkan']);
});

test('models named for the start go to one node each, the largest first; those of neuron.toml to all', () => {
  const config = configOf({ default_models: ['a', 'b', 'c', 'd', 'theirs'].map((id) => ({ model_id: id })) });
  const nodes = plan({ budgets: [200, 800, 400] }, config, ['a', 'b', 'c', 'd']);
  assert.deepEqual(
    nodes.map((node) => node.config.default_models.map((spec) => spec.model_id)),
    [
      ['c', 'theirs'],
      ['a', 'd', 'theirs'],
      ['b', 'theirs'],
    ],
  );
});

test('what does not go together is refused with the options in it', () => {
  assert.throws(() => plan({ nodes: 3, budgets: [1, 2] }), /--budgets has 2 sizes for --nodes 3/);
  assert.throws(() => plan({ budgets: [1], memoryMb: 2 }), /--budgets and --memory-mb/);
  assert.throws(() => plan({ nodes: 17 }), /at most 16/);
  assert.throws(() => plan({ nodes: 3 }, configOf({ port: 65_534 })), /lower --neuron-port/);
});
