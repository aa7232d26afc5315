import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { compareCold } from './cold-scan.ts';
import { isServiceMeasured, noTerms, ownRates, scoreOf, toWeighing, type Weighing } from './expected-time.ts';
import { explain } from './explain.ts';
import { FleetIndex } from './fleet-index.ts';
import { type FleetView, type NodeView, resolveAlias } from './fleet-view.ts';
import { type ColdCandidate, considerCold } from './placement.ts';
import { randomFleet, randomRequest } from './random-fleet.test.kit.ts';
import type { RateBook } from './rate-book.ts';
import { type RouteDecision, replicaGain, route, type Standing, weighHolder } from './route.ts';
import type { RouteRequest } from './route-request.ts';
import { toFleetView } from './to-fleet-view.ts';

/** One thing that may happen to a fleet between two decisions. */
function happen(random: SeededRandom, view: FleetView): void {
  const { index, rates } = view;
  const node = random.pick(view.nodes);
  if (random.chance(0.3)) {
    const [other] = toFleetView(randomFleet(random, 1)).nodes as [NodeView];
    index?.update(index.slotOf(node.name) ?? -1, { ...other, name: node.name });
  } else if (random.chance(0.6)) {
    const held = [...node.models.values()];
    // as the fleet counts a request: in the view that is there
    if (held.length > 0) (random.pick(held) as { leases: number }).leases = random.int(0, 6);
  } else {
    const model = random.pick(['m0', 'm1', 'm2', 'm3', 'm4', 'm5']);
    const name = random.pick(['loadMs', 'prefillTokS', 'serviceMs'] as const);
    (rates as RateBook).note(node.name, model, name, random.int(100, 20_000));
  }
}

interface Look {
  readonly node: NodeView;
  readonly score: number;
  readonly terms: ReturnType<typeof noTerms>;
}

/** What `route` promises, by a plain look at every node: `load n0`, `forward n1`, `wait n2`, `reject`. */
function plainly(view: FleetView, request: RouteRequest): readonly string[] {
  const model = resolveAlias(view, request.model);
  const weighing = toWeighing(view, new FleetIndex(view.nodes, view), request, model);
  const nodes = view.nodes.filter(({ healthy, name }) => healthy && !request.exclude?.has(name));
  const standing = (wanted: Standing): readonly Look[] =>
    nodes
      .flatMap((node) => {
        const terms = noTerms();
        const found = weighHolder(weighing, node, node.models.get(model), ownRates(weighing, node), terms);
        return found === wanted ? [{ node, terms, score: scoreOf(terms) }] : [];
      })
      .sort(
        (a, b) => a.score - b.score || a.terms.ahead - b.terms.ahead || (a.node.name < b.node.name ? -1 : 1),
      );
  const [ready, coming, leaving] = [standing('ready'), standing('coming')[0], standing('leaving')[0]];
  const [best] = ready;
  if (best !== undefined && (request.mustServeNow || coming === undefined || best.score <= coming.score)) {
    const mayPay = request.mayReplicate !== false && best.terms.queueMs > 0 && coming === undefined;
    const free =
      mayPay && isServiceMeasured(weighing, best.node) ? colds(weighing, nodes, true)[0] : undefined;
    if (free !== undefined && scoreOf(free.terms) * replicaGain <= best.score) {
      return [`load ${free.placement.node}`];
    }
    const served = ready.find(({ node }) => request.hasSlot?.(node.name, model) !== false) ?? best;
    return [`forward ${served.node.name}`];
  }
  if (coming !== undefined) return [`wait ${coming.node.name}`];
  if (standing('recovering').length > 0 && leaving === undefined) return ['reject'];
  const [cold] = colds(weighing, nodes, false);
  // moves between devices are sought where nothing is free: they may make another node the better one
  const moved = cold === undefined || cold.placement.evict.length > 0 ? movedTo(weighing, nodes) : [];
  if (leaving !== undefined && (cold === undefined || leaving.score <= scoreOf(cold.terms))) {
    return [`wait ${leaving.node.name}`, ...moved];
  }
  return [cold === undefined ? 'reject' : `load ${cold.placement.node}`, ...moved];
}

function colds(weighing: Weighing, nodes: readonly NodeView[], freeOnly: boolean): readonly ColdCandidate[] {
  return nodes
    .flatMap((node) => {
      const found = considerCold(weighing, node, false);
      return found === null || 'reason' in found ? [] : [found];
    })
    .filter(({ placement }) => !freeOnly || placement.evict.length === 0)
    .sort(compareCold);
}

function movedTo(weighing: Weighing, nodes: readonly NodeView[]): readonly string[] {
  return nodes.flatMap((node) => {
    const found = considerCold(weighing, node, true);
    const moves = found === null || 'reason' in found ? undefined : found.placement.moves;
    return moves === undefined ? [] : [`load ${node.name}`];
  });
}

const told = (decision: RouteDecision): string =>
  decision.kind === 'reject' ? 'reject' : `${decision.kind} ${decision.node}`;

describe('a decision on an index that was kept', () => {
  test('is that of a plain look at every node, whatever happened in between', () => {
    const random = new SeededRandom();
    for (let fleet = 0; fleet < 40; fleet++) {
      const sketch = randomFleet(random, 24);
      const view = toFleetView(sketch);
      for (let step = 0; step < 50; step++) {
        for (let i = random.int(0, 3); i > 0; i--) happen(random, view);
        const full = new Set(view.nodes.map(({ name }) => name).filter(() => random.chance(0.4)));
        const request: RouteRequest = {
          ...randomRequest(random, sketch),
          ...(random.chance(0.5) ? { hasSlot: (node: string) => !full.has(node) } : {}),
          mayReplicate: random.chance(0.5),
          mustServeNow: random.chance(0.2),
        };
        const note = `fleet ${fleet} step ${step}; TEST_SEED=${random.seed}`;
        const decision = route(view, request);
        const expected = view.nodes.some(({ healthy }) => healthy) ? plainly(view, request) : ['reject'];
        assert.ok(expected.includes(told(decision)), `${told(decision)}, not ${expected}; ${note}`);
        const { index: _, ...without } = view;
        assert.deepEqual(route(without, request), decision, note);
        const explained = explain(view, request);
        assert.equal(explained.node, decision.kind === 'reject' ? null : decision.node, note);
      }
    }
  });
});

describe('a model on many nodes', () => {
  /** Few different numbers, so that many replicas are as good as each other. */
  const node = (random: SeededRandom, name: string): NodeView => {
    const [made] = toFleetView({
      nodes: [
        {
          name,
          healthy: random.chance(0.95),
          models: [
            {
              id: 'm',
              status: random.pick(['loaded', 'loaded', 'loaded', 'loading', 'available'] as const),
              slots: random.pick([null, 1, 2]),
              leases: random.int(0, 3),
              foreignLoad: random.int(0, 2),
              draining: random.chance(0.05),
            },
          ],
        },
      ],
    }).nodes;
    return made as NodeView;
  };

  test('goes where a plain look at each of them finds the least, ties and cached prompts included', () => {
    const random = new SeededRandom();
    for (let fleet = 0; fleet < 40; fleet++) {
      const names = Array.from({ length: random.int(1, 40) }, (_, i) => `n${String(i).padStart(2, '0')}`);
      const view = toFleetView({ nodes: names.map((name) => ({ name })) });
      const { index } = view;
      for (const [slot, name] of names.entries()) index?.update(slot, node(random, name));
      for (let step = 0; step < 60; step++) {
        const name = random.pick(names);
        if (random.chance(0.2)) index?.update(index.slotOf(name) ?? -1, node(random, name));
        const held = view.nodes.find((each) => each.name === name)?.models.get('m');
        if (held !== undefined) (held as { leases: number }).leases = random.int(0, 3);
        if (random.chance(0.3)) {
          const rate = random.pick(['prefillTokS', 'serviceMs', 'decodeTokS'] as const);
          (view.rates as RateBook).note(name, 'm', rate, random.pick([100, 1000]));
        }
        const cached = [0, 1].map(() => ({ node: random.pick(names), tokens: random.pick([0, 500, 2000]) }));
        const full = new Set(names.filter(() => random.chance(0.5)));
        const request: RouteRequest = {
          ...{ model: 'm', promptTokens: 1000, nowMs: 1_000_000, mustServeNow: true, mayReplicate: false },
          ...(random.chance(0.6) ? { cached } : {}),
          ...(random.chance(0.5) ? { hasSlot: (at: string) => !full.has(at) } : {}),
          ...(random.chance(0.3) ? { exclude: new Set([random.pick(names)]) } : {}),
        };
        const note = `fleet ${fleet} step ${step}; TEST_SEED=${random.seed}`;
        const expected = view.nodes.some(({ healthy }) => healthy) ? plainly(view, request) : ['reject'];
        const decision = told(route(view, request));
        assert.ok(expected.includes(decision), `${decision}, not ${expected}; ${note}`);
      }
    }
  });
});

describe('a replica that is full', () => {
  const replicas = ['a', 'b', 'c'].map((name, i) => ({
    name,
    models: [{ id: 'm', slots: 8, leases: i }],
  }));
  const view = toFleetView({ nodes: replicas });
  const ask = (...full: string[]): RouteRequest => ({
    model: 'm',
    hasSlot: (node) => !full.includes(node),
  });

  test('is passed by for the next, and for none when all are full', () => {
    assert.equal(told(route(view, ask())), 'forward a');
    assert.equal(told(route(view, ask('a'))), 'forward b');
    assert.equal(told(route(view, ask('a', 'b'))), 'forward c');
    assert.equal(told(route(view, ask('a', 'b', 'c'))), 'forward a');
  });

  test('is explained as such, with the one that is taken instead as the winner', () => {
    const { node, why, candidates } = explain(view, ask('a'));
    assert.equal(`${node}: ${why}`, 'b: least expected wait of 3 replicas, of those with a free slot');
    const a = candidates.find((each) => each.node === 'a');
    assert.deepEqual([a?.verdict, a?.why], ['lost', 'its slots and its queue are full']);
  });

  test('is asked about only where it could win: not every replica for every request', () => {
    const many = Array.from({ length: 200 }, (_, i) => ({
      name: `n${String(i).padStart(3, '0')}`,
      models: [{ id: 'm', slots: 8, leases: i % 7 }],
    }));
    let asked = 0;
    const hasSlot = (node: string): boolean => {
      asked++;
      return node !== 'n000';
    };
    assert.equal(told(route(toFleetView({ nodes: many }), { model: 'm', hasSlot })), 'forward n007');
    assert.ok(asked < 20, `${asked}`);
  });
});
