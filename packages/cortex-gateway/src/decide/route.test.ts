import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { needOf, planFit } from './eviction.ts';
import type { CatalogueEntry, FleetView, ModelView, NodeView } from './fleet-view.ts';
import { choosePlacement } from './placement.ts';
import { route } from './route.ts';

const entry = (id: string, more: Partial<CatalogueEntry> = {}): CatalogueEntry => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  quant: null,
  vramMb: 1000,
  minDevices: 1,
  minDeviceVramMb: null,
  pinnedOn: [],
  residencyPriority: 100,
  limit: null,
  cost: null,
  capabilities: [],
  ...more,
});

const model = (id: string, more: Partial<ModelView> = {}): ModelView => ({
  id,
  wireId: id,
  harness: 'llamacpp',
  status: 'loaded',
  devices: [0],
  vramMb: 1000,
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

const node = (
  name: string,
  devices: readonly (readonly [number, number | null])[],
  models: ModelView[] = [],
): NodeView => ({
  name,
  healthy: true,
  discovered: true,
  harnesses: ['llamacpp'],
  devices: devices.map(([totalMb, freeMb], index) => ({ index, totalMb, freeMb })),
  models: new Map(models.map((each) => [each.id, each])),
  pending: [],
});

const view = (
  nodes: NodeView[],
  entries: CatalogueEntry[] = [],
  more: Partial<FleetView> = {},
): FleetView => ({
  nodes,
  catalogue: new Map(entries.map((each) => [each.id, each])),
  aliases: new Map(),
  strategy: 'lru',
  ...more,
});

describe('route()', () => {
  test('takes the least busy replica, own requests counted, ties by name', () => {
    const a = node('a', [[8000, 0]], [model('m', { leases: 2 })]);
    const b = node('b', [[8000, 0]], [model('m', { foreignLoad: 1 })]);
    const c = node('c', [[8000, 0]], [model('m', { leases: 1 })]);
    const decision = route(view([a, b, c]), 'm');
    assert.equal(decision.kind === 'forward' && decision.node, 'b');
  });

  test('skips a replica that drains, cannot serve or is excluded', () => {
    const a = node('a', [[8000, 0]], [model('m', { unservable: 'too little memory' })]);
    const b = node('b', [[8000, 0]], [model('m')]);
    assert.equal(route(view([a, b]), 'm').kind, 'forward');
    assert.equal(route(view([a, b]), 'm', new Set(['b'])).kind, 'reject');
    const draining = node('c', [[8000, 0]], [model('m', { draining: true })]);
    assert.equal(route(view([draining]), 'm').kind, 'wait');
  });

  test('waits when a node is loading, and when it recovers says so', () => {
    assert.equal(route(view([{ ...node('a', [[1, 1]]), pending: ['m'] }], [entry('m')]), 'm').kind, 'wait');
    const decision = route(view([node('a', [[1, 1]], [model('m', { status: 'recovering' })])]), 'm');
    assert.equal(decision.kind === 'reject' && decision.code, 'model_recovering');
  });

  test('no healthy node is 503 even for an unknown model; an unknown model is 404', () => {
    const down = { ...node('a', [[1, 1]]), healthy: false };
    const nobody = route(view([down]), 'm');
    assert.equal(nobody.kind === 'reject' && nobody.code, 'no_healthy_nodes');
    const unknown = route(view([node('a', [[1, 1]])]), 'm');
    assert.equal(unknown.kind === 'reject' && unknown.code, 'model_not_found');
  });

  test('a model pinned to a node that is down gets a retryable answer', () => {
    const down = { ...node('a', [[9000, 9000]]), healthy: false };
    const decision = route(view([down, node('b', [[9000, 9000]])], [entry('m', { pinnedOn: ['a'] })]), 'm');
    assert.equal(decision.kind === 'reject' && decision.code, 'node_unhealthy');
    assert.equal(decision.kind === 'reject' && decision.retryAfterSecs, 3);
  });
});

describe('planFit()', () => {
  const fit = (v: FleetView, id: string) =>
    planFit(v, v.nodes[0]!, needOf(id, v.catalogue.get(id), undefined));

  test('evicts the longest idle, never-used first, and no more than needed', () => {
    const models = [
      model('x', { lastUsedMs: 5 }),
      model('y', { lastUsedMs: 2 }),
      model('z', { lastUsedMs: null }),
    ];
    const plan = fit(view([node('a', [[3000, 0]], models)], [entry('m', { vramMb: 1500 })]), 'm');
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['z', 'y']);
  });

  test('spares a small victim when a later one alone suffices', () => {
    const models = [model('s', { vramMb: 100, lastUsedMs: 1 }), model('l', { vramMb: 2900, lastUsedMs: 2 })];
    const plan = fit(view([node('a', [[3000, 0]], models)], [entry('m', { vramMb: 2500 })]), 'm');
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['l']);
  });

  test('evicts nothing when higher ranks make it useless, and says who stays', () => {
    const models = [model('pin', { vramMb: 2000 }), model('x')];
    const v = view(
      [node('a', [[3000, 0]], models)],
      [entry('m', { vramMb: 2500 }), entry('pin', { vramMb: 2000, residencyPriority: 1000 })],
    );
    const plan = fit(v, 'm');
    assert.match(plan.ok ? '' : plan.reason, /can free at most 1000 MiB; pin may not be displaced/);
  });

  test('strategy priority evicts the lower rank although it was used later', () => {
    const models = [model('low', { lastUsedMs: 9 }), model('high', { lastUsedMs: 1 })];
    const entries = [entry('m'), entry('low', { residencyPriority: 50 }), entry('high')];
    const plan = fit(view([node('a', [[2000, 0]], models)], entries, { strategy: 'priority' }), 'm');
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['low']);
  });

  test('sums the freest devices of a multi-device model', () => {
    const v = view(
      [
        node('a', [
          [8000, 100],
          [8000, 5000],
          [8000, 4000],
        ]),
      ],
      [entry('m', { vramMb: 8500, minDevices: 2 })],
    );
    const plan = fit(v, 'm');
    assert.deepEqual(plan.ok && [plan.devices, plan.evict], [[1, 2], []]);
  });

  test('without a reading it counts what is resident', () => {
    const v = view([node('a', [[3000, null]], [model('x', { vramMb: 2500 })])], [entry('m')]);
    const plan = fit(v, 'm');
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['x']);
  });
});

describe('choosePlacement()', () => {
  test('prefers pinned, then fits free, then most free; gives every other node a sentence', () => {
    const nodes = [node('a', [[4000, 0]], [model('x')]), node('b', [[4000, 3000]]), node('c', [[500, 500]])];
    const choice = choosePlacement(view(nodes, [entry('m')]), 'm');
    assert.equal(choice.kind === 'place' && choice.placement.node, 'b');
    assert.match(choice.rejected[0]?.reason ?? '', /c has only 500 MiB/);
    const pinned = choosePlacement(view(nodes, [entry('m', { pinnedOn: ['a'] })]), 'm');
    assert.equal(pinned.kind === 'place' && pinned.placement.node, 'a');
    assert.match(pinned.rejected[0]?.reason ?? '', /pinned to a, not b/);
  });
});
