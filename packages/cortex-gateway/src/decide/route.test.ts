import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { needOf, planFit } from './eviction.ts';
import type { FleetView, NodeView } from './fleet-view.ts';
import { route } from './route.ts';
import { type FleetSketch, type NodeSketch, toFleetView } from './to-fleet-view.ts';

type Sketch = Omit<FleetSketch, 'nodes' | 'catalogue'>;

const view = (nodes: readonly NodeSketch[], catalogue: FleetSketch['catalogue'] = [], more: Sketch = {}) =>
  toFleetView({ nodes, catalogue, ...more });

const gpu = (freeMb: number | null, totalMb = 8000) => ({ totalMb, freeMb });

/** What a decision comes to, in one line. */
function told(v: FleetView, model: string, more: Omit<Parameters<typeof route>[1], 'model'> = {}): string {
  const decision = route(v, { model, ...more });
  return decision.kind === 'reject' ? decision.code : `${decision.kind} ${decision.node}`;
}

/** Sends requests one after another that all stay, and counts where they went. */
function burst(v: FleetView, count: number, promptTokens = 100): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let i = 0; i < count; i++) {
    const decision = route(v, { model: 'm', promptTokens });
    assert.equal(decision.kind, 'forward');
    if (decision.kind !== 'forward') break;
    counts[decision.node] = (counts[decision.node] ?? 0) + 1;
    const held = v.nodes.find((node) => node.name === decision.node)?.models.get('m');
    assert.ok(held);
    (held as { leases: number }).leases++;
  }
  return counts;
}

describe('route()', () => {
  test('takes the least busy of equal replicas, own requests counted, ties by name', () => {
    const nodes = [
      { name: 'a', models: [{ id: 'm', leases: 2 }] },
      { name: 'b', models: [{ id: 'm', foreignLoad: 1 }] },
      { name: 'c', models: [{ id: 'm', leases: 1 }] },
    ];
    assert.equal(told(view(nodes), 'm'), 'forward b');
  });

  test('a burst over equal replicas spreads evenly, below and above their slots', () => {
    const nodes = ['a', 'b', 'c'].map((name) => ({ name, models: [{ id: 'm', slots: 4 }] }));
    assert.deepEqual(burst(view(nodes), 30), { a: 10, b: 10, c: 10 });
    assert.deepEqual(burst(view(nodes), 30, 1), { a: 10, b: 10, c: 10 });
  });

  test('a burst over unequal replicas follows their measured speed', () => {
    const nodes = ['fast', 'slow'].map((name) => ({ name, models: [{ id: 'm', slots: 2 }] }));
    const rates = [
      { node: 'fast', model: 'm', serviceMs: 1000, prefillTokS: 4000 },
      { node: 'slow', model: 'm', serviceMs: 4000, prefillTokS: 1000 },
    ];
    const { fast = 0, slow = 0 } = burst(view(nodes, [], { rates }), 40);
    assert.ok(fast >= 3 * slow && slow > 0, `fast ${fast}, slow ${slow}`);
  });

  test('a long prompt goes to the node that reads faster although it is busier', () => {
    const nodes = [
      { name: 'old', models: [{ id: 'm' }] },
      { name: 'new', models: [{ id: 'm', leases: 2 }] },
    ];
    const rates = [
      { node: 'old', model: 'm', prefillTokS: 200 },
      { node: 'new', model: 'm', prefillTokS: 4000 },
    ];
    assert.equal(told(view(nodes, [], { rates }), 'm', { promptTokens: 20_000 }), 'forward new');
  });

  test('a cached prefix is worth the time to read it, and no more', () => {
    const nodes = [
      { name: 'a', models: [{ id: 'm', slots: 1 }] },
      { name: 'b', models: [{ id: 'm', slots: 1 }] },
    ];
    const rates = ['a', 'b'].map((node) => ({ node, model: 'm', prefillTokS: 1000, serviceMs: 3000 }));
    const cached = [{ node: 'b', tokens: 9000 }];
    const idle = view(nodes, [], { rates });
    assert.equal(told(idle, 'm', { promptTokens: 10_000, cached }), 'forward b');
    // 9 s of reading saved against 6 s of queue, then against 12 s
    const busy = (leases: number) =>
      view([nodes[0] as NodeSketch, { name: 'b', models: [{ id: 'm', slots: 1, leases }] }], [], { rates });
    assert.equal(told(busy(2), 'm', { promptTokens: 10_000, cached }), 'forward b');
    assert.equal(told(busy(4), 'm', { promptTokens: 10_000, cached }), 'forward a');
  });

  test('a failover takes a busy replica rather than a load that would be up sooner', () => {
    const coming = new Map([['m', { sinceMs: 0, readyMs: 10, waiting: 0 }]]);
    const nodes = [
      { name: 'a', models: [{ id: 'm', slots: 1, leases: 9 }] },
      { name: 'b', pending: ['m'], coming },
    ];
    assert.equal(told(view(nodes, [{ id: 'm' }]), 'm', { nowMs: 0 }), 'wait b');
    assert.equal(told(view(nodes, [{ id: 'm' }]), 'm', { nowMs: 0, mustServeNow: true }), 'forward a');
  });

  test('a load that comes up has nothing cached, whatever is believed of the node', () => {
    const v = view([{ name: 'a', models: [{ id: 'm', status: 'loading' }] }]);
    const decision = route(v, { model: 'm', promptTokens: 50, cached: [{ node: 'a', tokens: 40 }] });
    assert.equal(decision.kind === 'wait' && decision.terms.cachedTokens, 0);
  });

  test('never believes more tokens cached than the prompt has', () => {
    const v = view([{ name: 'a', models: [{ id: 'm' }] }]);
    const decision = route(v, { model: 'm', promptTokens: 50, cached: [{ node: 'a', tokens: 9000 }] });
    assert.ok(decision.kind === 'forward' && decision.terms.prefillMs > 0);
    assert.equal(decision.terms.cachedTokens, 49);
  });

  test('skips a replica that drains, cannot serve, is down or excluded', () => {
    const a = { name: 'a', models: [{ id: 'm', unservable: 'too little memory' }] };
    const b = { name: 'b', models: [{ id: 'm' }] };
    const down = { name: '0', healthy: false, models: [{ id: 'm' }] };
    assert.equal(told(view([a, b, down]), 'm'), 'forward b');
    assert.equal(told(view([a, b]), 'm', { exclude: new Set(['b']) }), 'overloaded');
    assert.equal(told(view([{ name: 'c', models: [{ id: 'm', draining: true }] }]), 'm'), 'wait c');
  });

  test('waits for a load that runs, also for one that others began; recovering says so', () => {
    assert.equal(told(view([{ name: 'a', pending: ['m'] }], [{ id: 'm' }]), 'm'), 'wait a');
    assert.equal(told(view([{ name: 'a', models: [{ id: 'm', status: 'loading' }] }]), 'm'), 'wait a');
    assert.equal(
      told(view([{ name: 'a', models: [{ id: 'm', status: 'recovering' }] }]), 'm'),
      'model_recovering',
    );
  });

  test('what waits for its turn is expected no sooner than that', () => {
    const node = (turnMs: number | null) => ({ name: 'a', pending: ['m'], turnMs });
    const expected = (turnMs: number | null): number => {
      const decision = route(view([node(turnMs)], [{ id: 'm', vramMb: 800 }]), { model: 'm', nowMs: 1000 });
      assert.ok(decision.kind === 'wait');
      return decision.terms.totalMs;
    };
    assert.equal(expected(41_000) - expected(null), 40_000);
    assert.equal(expected(500), expected(null));
  });

  test('waits for the load that will be up first', () => {
    const coming = (readyMs: number) => new Map([['m', { sinceMs: null, readyMs, waiting: 0 }]]);
    const nodes = [
      { name: 'a', pending: ['m'], coming: coming(90_000) },
      { name: 'b', pending: ['m'], coming: coming(20_000) },
    ];
    assert.equal(told(view(nodes, [{ id: 'm' }]), 'm', { nowMs: 10_000 }), 'wait b');
  });

  test('no healthy node is 503 even for an unknown model; an unknown model is 404', () => {
    assert.equal(told(view([{ name: 'a', healthy: false }]), 'm'), 'no_healthy_nodes');
    assert.equal(told(view([{ name: 'a' }]), 'm'), 'model_not_found');
  });

  test('what is on no node is not called missing while a node is still awaited: it may have it', () => {
    const mute = { name: 'mute', healthy: false, discovered: false, isAwaited: true };
    const decision = route(view([{ name: 'a' }, mute]), { model: 'm' });
    assert.ok(decision.kind === 'reject');
    assert.deepEqual([decision.code, decision.retryAfterSecs], ['node_unhealthy', 3]);
    assert.match(
      decision.message,
      /"m" is on no node that answers; mute has not answered yet and may have it/,
    );
    // one that stays away would keep clients trying a wrong name
    assert.equal(told(view([{ name: 'a' }, { ...mute, isAwaited: false }]), 'm'), 'model_not_found');
  });

  test('a model pinned to a node that is down gets a retryable answer', () => {
    const nodes = [
      { name: 'a', healthy: false, devices: [9000] },
      { name: 'b', devices: [9000] },
    ];
    const decision = route(view(nodes, [{ id: 'm', vramMb: 1000, pinnedOn: ['a'] }]), { model: 'm' });
    assert.equal(decision.kind === 'reject' && decision.code, 'node_unhealthy');
    assert.equal(decision.kind === 'reject' && decision.retryAfterSecs, 3);
  });

  test('a model that only a neuron knows is loaded there from its disk', () => {
    const nodes = [
      { name: 'a', devices: [9000] },
      { name: 'b', devices: [9000], models: [{ id: 'm', status: 'available' as const, vramMb: 500 }] },
    ];
    assert.equal(told(view(nodes), 'm'), 'load b');
  });

  test('an alias goes where its model is', () => {
    const v = view([{ name: 'a', models: [{ id: 'm' }] }], [], { aliases: { fast: 'm' } });
    const decision = route(v, { model: 'fast' });
    assert.ok(decision.kind === 'forward');
    assert.deepEqual([decision.model, decision.wireId], ['m', 'm']);
  });
});

describe('a cold load', () => {
  const m = { id: 'm', vramMb: 1000 };

  test('goes where it fits free, then to the most free, and never where it cannot fit', () => {
    const nodes = [
      { name: 'a', devices: [gpu(0, 4000)], models: [{ id: 'x', vramMb: 1000 }] },
      { name: 'b', devices: [gpu(3000, 4000)] },
      { name: 'c', devices: [gpu(500, 500)] },
      { name: 'd', devices: [gpu(3500, 4000)] },
    ];
    assert.equal(told(view(nodes, [m]), 'm'), 'load d');
    assert.equal(told(view(nodes, [{ ...m, pinnedOn: ['a'] }]), 'm'), 'load a');
    assert.equal(
      told(view(nodes, [{ ...m, vramMb: 3800 }]), 'm', { exclude: new Set(['a']) }),
      'no_feasible_node',
    );
  });

  test('every refusal has a sentence with numbers for each node', () => {
    const nodes = [
      { name: 'a', devices: [gpu(0, 4000)], models: [{ id: 'x', vramMb: 4000 }] },
      { name: 'b', devices: [gpu(500, 500)] },
      { name: 'c', devices: [gpu(9000, 9000)], harnesses: ['other'] },
      { name: 'd', devices: [gpu(9000, 9000)], discovered: false },
    ];
    const catalogue = [m, { id: 'x', residencyPriority: 1000 }];
    const decision = route(view(nodes, catalogue), { model: 'm' });
    assert.ok(decision.kind === 'reject');
    assert.deepEqual(
      decision.nodes.map(({ reason }) => reason),
      [
        'needs 1000 MiB, a can free at most 0 MiB; x may not be displaced',
        'needs 1000 MiB, b has only 500 MiB on 1 device(s)',
        'c has no harness "llamacpp" (it has other)',
        'd has not told its devices yet',
      ],
    );
  });

  test('sums the devices of a model of several, and takes the freest', () => {
    const nodes = [
      { name: 'a', devices: [gpu(8000), gpu(100)] },
      { name: 'b', devices: [gpu(100), gpu(5000), gpu(4000)] },
    ];
    const decision = route(view(nodes, [{ id: 'm', vramMb: 8500, minDevices: 2 }]), { model: 'm' });
    assert.ok(decision.kind === 'load');
    assert.deepEqual([decision.node, decision.placement.spec.devices], ['b', [1, 2]]);
  });

  test('a node with too few devices, or too small ones, is out', () => {
    const nodes = [
      { name: 'a', devices: [gpu(8000)] },
      { name: 'b', devices: [gpu(8000), gpu(3000, 3000)] },
    ];
    const decision = route(view(nodes, [{ ...m, minDevices: 2, minDeviceVramMb: 4000 }]), { model: 'm' });
    assert.ok(decision.kind === 'reject');
    assert.deepEqual(
      decision.nodes.map(({ reason }) => reason),
      ['needs 2 device(s) of at least 4000 MiB, a has 1', 'needs 2 device(s) of at least 4000 MiB, b has 1'],
    );
  });

  test('goes to the node whose disk is faster, by measured loads of whatever model', () => {
    const nodes = ['hdd', 'nvme'].map((name) => ({
      name,
      devices: [gpu(8000)],
      models: [{ id: 'm', status: 'available' as const }],
    }));
    const v = view(nodes, [m], { rates: [{ node: 'hdd', model: 'm', loadMs: 60_000 }] });
    assert.equal(told(v, 'm'), 'load hdd', 'all that is known is one measured load');
    const both = [
      { node: 'hdd', model: 'm', loadMs: 60_000 },
      { node: 'nvme', model: 'm', loadMs: 4000 },
    ];
    assert.equal(told(view(nodes, [m], { rates: both }), 'm'), 'load nvme');
  });

  test('loads where the file is rather than where it has to be fetched', () => {
    const nodes = [
      { name: 'a', devices: [gpu(8000)] },
      { name: 'b', devices: [gpu(4000)], models: [{ id: 'm', status: 'available' as const }] },
    ];
    assert.equal(told(view(nodes, [m]), 'm'), 'load b');
  });

  test('rather displaces what was idle for long than what was just used', () => {
    const full = (name: string, lastUsedMs: number) => ({
      name,
      devices: [gpu(0, 1000)],
      models: [{ id: `on-${name}`, vramMb: 1000, lastUsedMs }],
    });
    const v = view([full('a', 990_000), full('b', 100_000)], [m]);
    assert.equal(told(v, 'm', { nowMs: 1_000_000 }), 'load b');
  });

  test('goes where its turn comes first: not where the victim has only just come, or is asked for', () => {
    const full = ['a', 'b', 'c'].map((name) => ({
      name,
      devices: [gpu(0)],
      models: [
        { id: 'm', status: 'available' as const },
        { id: `${name}s`, vramMb: 6000 },
      ],
    }));
    const habits = new Map([
      ['a', { gapMs: null, residentSinceMs: 99_000, idleSinceMs: 99_000 }],
      ['c', { gapMs: null, residentSinceMs: 0, idleSinceMs: 0 }],
    ]);
    const turns = {
      rules: () => ({ maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 }),
      habits: (node: string) => habits.get(node),
      waiting: (model: string) => (model === 'bs' ? 1 : 0),
    };
    const fleet = view(full, [{ id: 'm', vramMb: 5000 }]);
    assert.equal(told(fleet, 'm', { nowMs: 100_000 }), 'load a');
    assert.equal(told({ ...fleet, turns }, 'm', { nowMs: 100_000 }), 'load c');
    const without = (...nodes: string[]) => ({ model: 'm', nowMs: 100_000, exclude: new Set(nodes) });
    const second = route({ ...fleet, turns }, without('c'));
    assert.ok(second.kind === 'load' && second.node === 'a');
    // a load of 6000 MiB at 800 MiB/s and 1.5 s, less the second that it has been there
    assert.equal(second.terms.turnMs, 8000);
    const third = route({ ...fleet, turns }, without('a', 'c'));
    assert.ok(third.kind === 'load' && third.terms.turnMs > 30_000);
  });

  test('keeps off a node whose queued loads will take the memory', () => {
    const nodes = [
      { name: 'a', devices: [gpu(1500, 1500)], pending: ['other'] },
      { name: 'b', devices: [gpu(1200, 1500)] },
    ];
    assert.equal(told(view(nodes, [m, { id: 'other', vramMb: 1000 }]), 'm'), 'load b');
  });
});

describe('a further replica', () => {
  const rates = [
    { node: 'a', model: 'm', serviceMs: 10_000, loadMs: 8000, prefillTokS: 1000 },
    { node: 'b', model: 'm', loadMs: 8000 },
  ];
  const catalogue = [{ id: 'm', vramMb: 1000 }];
  const nodes = (leases: number, freeOnB = 4000): NodeSketch[] => [
    { name: 'a', devices: [gpu(0)], models: [{ id: 'm', slots: 2, leases }] },
    { name: 'b', devices: [gpu(freeOnB)], models: [{ id: 'x', vramMb: 4000 }] },
  ];

  test('is loaded when that halves the wait', () => {
    // 3 must end, two at a time, 10 s each: 15 s, and 40 s with 8 to end
    assert.equal(told(view(nodes(4), catalogue, { rates }), 'm', { promptTokens: 10 }), 'forward a');
    assert.equal(told(view(nodes(9), catalogue, { rates }), 'm', { promptTokens: 10 }), 'load b');
  });

  test('is not loaded while a slot is free, without a measured service time, or at another model’s cost', () => {
    assert.equal(told(view(nodes(1), catalogue, { rates }), 'm'), 'forward a');
    assert.equal(told(view(nodes(50), catalogue), 'm'), 'forward a');
    assert.equal(told(view(nodes(50, 0), catalogue, { rates }), 'm'), 'forward a');
  });

  test('is found also where the fastest nodes all have one already', () => {
    const busy = Array.from({ length: 30 }, (_, i) => ({
      name: `busy${i}`,
      devices: [gpu(8000)],
      models: [{ id: 'm', slots: 1, leases: 5 }],
    }));
    const measured = busy.map(({ name }) => ({ node: name, model: 'm', serviceMs: 30_000, loadMs: 1000 }));
    const v = view([...busy, { name: 'free', devices: [gpu(4000)] }], catalogue, { rates: measured });
    assert.equal(told(v, 'm', { promptTokens: 10 }), 'load free');
  });

  test('is not loaded for a request that failed over or has waited already', () => {
    const ask = { promptTokens: 10, mayReplicate: false };
    assert.equal(told(view(nodes(9), catalogue, { rates }), 'm', ask), 'forward a');
  });

  test('is not loaded while one is coming up, however late', () => {
    const late = new Map([['m', { sinceMs: null, readyMs: 3_600_000, waiting: 0 }]]);
    const coming = { name: 'c', pending: ['m'], coming: late, devices: [gpu(0)] };
    const ask = { promptTokens: 10, nowMs: 0 };
    assert.equal(told(view([...nodes(9), coming], catalogue, { rates }), 'm', ask), 'forward a');
  });
});

describe('planFit()', () => {
  const fit = (v: FleetView, id: string) =>
    planFit(v, v.nodes[0] as NodeView, needOf(id, v.catalogue.get(id), undefined));

  test('evicts the longest idle, never-used first, and no more than needed', () => {
    const models = [
      { id: 'x', vramMb: 1000, lastUsedMs: 5 },
      { id: 'y', vramMb: 1000, lastUsedMs: 2 },
      { id: 'z', vramMb: 1000, lastUsedMs: null },
    ];
    const plan = fit(
      view([{ name: 'a', devices: [gpu(0, 3000)], models: models }], [{ id: 'm', vramMb: 1500 }]),
      'm',
    );
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['z', 'y']);
  });

  test('spares a small victim when a later one alone suffices', () => {
    const models = [
      { id: 's', vramMb: 100, lastUsedMs: 1 },
      { id: 'l', vramMb: 2900, lastUsedMs: 2 },
    ];
    const plan = fit(
      view([{ name: 'a', devices: [gpu(0, 3000)], models: models }], [{ id: 'm', vramMb: 2500 }]),
      'm',
    );
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['l']);
  });

  test('evicts nothing when higher ranks make it useless, and says who stays', () => {
    const models = [
      { id: 'pin', vramMb: 2000 },
      { id: 'x', vramMb: 1000 },
    ];
    const v = view(
      [{ name: 'a', devices: [gpu(0, 3000)], models: models }],
      [
        { id: 'm', vramMb: 2500 },
        { id: 'pin', vramMb: 2000, residencyPriority: 1000 },
      ],
    );
    const plan = fit(v, 'm');
    assert.match(plan.ok ? '' : plan.reason, /can free at most 1000 MiB; pin may not be displaced/);
  });

  test('strategy priority evicts the lower rank although it was used later', () => {
    const models = [
      { id: 'low', vramMb: 1000, lastUsedMs: 9 },
      { id: 'high', vramMb: 1000, lastUsedMs: 1 },
    ];
    const entries = [
      { id: 'm', vramMb: 1000 },
      { id: 'low', vramMb: 1000, residencyPriority: 50 },
      { id: 'high', vramMb: 1000 },
    ];
    const plan = fit(
      view([{ name: 'a', devices: [gpu(0, 2000)], models: models }], entries, { strategy: 'priority' }),
      'm',
    );
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['low']);
  });

  test('sums the freest devices of a multi-device model', () => {
    const v = view(
      [{ name: 'a', devices: [gpu(100), gpu(5000), gpu(4000)] }],
      [{ id: 'm', vramMb: 8500, minDevices: 2 }],
    );
    const plan = fit(v, 'm');
    assert.deepEqual(plan.ok && [plan.devices, plan.evict], [[1, 2], []]);
  });

  test('without a reading it counts what is resident', () => {
    const v = view(
      [{ name: 'a', devices: [gpu(null, 3000)], models: [{ id: 'x', vramMb: 2500 }] }],
      [{ id: 'm', vramMb: 1000 }],
    );
    const plan = fit(v, 'm');
    assert.deepEqual(plan.ok && plan.evict.map((victim) => victim.model), ['x']);
  });
});
