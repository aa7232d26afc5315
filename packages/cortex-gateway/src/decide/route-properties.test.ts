import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { noTerms, ownRates, scoreOf, toWeighing } from './expected-time.ts';
import { explain } from './explain.ts';
import type { FleetView } from './fleet-view.ts';
import { resolveAlias } from './fleet-view.ts';
import { considerCold, considerNode } from './placement.ts';
import { randomFleet, randomRequest } from './random-fleet.test.kit.ts';
import { indexOf, type RouteDecision, route, weighHolder } from './route.ts';
import type { RouteRequest } from './route-request.ts';
import { toFleetView } from './to-fleet-view.ts';

/** Random fleets, each asked a few things. */
function each(count: number, nodesMax: number, check: (v: FleetView, r: RouteRequest, note: string) => void) {
  const random = new SeededRandom();
  for (let i = 0; i < count; i++) {
    const sketch = randomFleet(random, nodesMax);
    const view = toFleetView(sketch);
    for (let k = 0; k < 4; k++)
      check(view, randomRequest(random, sketch), `fleet ${i}; TEST_SEED=${random.seed}`);
  }
}

const chosen = (decision: RouteDecision): string | null =>
  decision.kind === 'reject' ? null : decision.node;

describe('over random fleets', () => {
  test('whoever is chosen is healthy, not excluded, and can do what was decided', () => {
    each(800, 8, (view, request, note) => {
      const decision = route(view, request);
      if (decision.kind === 'reject') return;
      const node = view.nodes.find(({ name }) => name === decision.node);
      assert.ok(node?.healthy, note);
      assert.ok(!request.exclude?.has(node.name), note);
      const held = node.models.get(decision.model);
      if (decision.kind === 'forward') {
        assert.deepEqual([held?.status, held?.draining, held?.unservable], ['loaded', false, null], note);
      } else if (decision.kind === 'load') {
        assert.ok(!('reason' in considerNode(view, node, decision.model)), note);
      } else {
        const moves = node.pending.includes(decision.model) || held?.status === 'loading' || held?.draining;
        assert.ok(moves, note);
      }
    });
  });

  test('a refusal is right: no node could serve it', () => {
    each(800, 6, (view, request, note) => {
      const decision = route(view, request);
      if (decision.kind !== 'reject' || decision.code === 'no_healthy_nodes') return;
      if (decision.code === 'model_recovering') return;
      const model = resolveAlias(view, request.model);
      for (const node of view.nodes) {
        if (!node.healthy || request.exclude?.has(node.name)) continue;
        const weighing = toWeighing(view, indexOf(view), request, model);
        assert.equal(
          weighHolder(weighing, node, node.models.get(model), ownRates(weighing, node), noTerms()),
          'cannot',
          note,
        );
        const cold = considerCold(weighing, node, true);
        assert.ok(cold === null || 'reason' in cold, note);
      }
    });
  });

  test('no other replica would have been faster, and no other load', () => {
    each(600, 20, (view, request, note) => {
      const decision = route(view, request);
      if (decision.kind === 'reject') return;
      const weighing = toWeighing(view, indexOf(view), request, decision.model);
      for (const node of view.nodes) {
        if (!node.healthy || request.exclude?.has(node.name)) continue;
        const terms = noTerms();
        const standing = weighHolder(
          weighing,
          node,
          node.models.get(decision.model),
          ownRates(weighing, node),
          terms,
        );
        if (standing === 'ready' && decision.kind !== 'load') {
          assert.ok(scoreOf(terms) >= scoreOf(decision.terms), note);
        }
        // moves between devices are sought where nothing is free, and on few nodes: they can only better it
        const cold =
          standing === 'cannot' && decision.kind === 'load' ? considerCold(weighing, node, false) : null;
        if (cold === null || 'reason' in cold || decision.why === 'halves the wait') continue;
        assert.ok(scoreOf(cold.terms) >= scoreOf(decision.terms) - 1e-6, note);
      }
    });
  });

  test('in a full fleet the load that evicts soonest is found', () => {
    const random = new SeededRandom();
    for (let i = 0; i < 300; i++) {
      const nodes = Array.from({ length: random.int(1, 20) }, (_, n) => ({
        name: `n${n}`,
        devices: [{ totalMb: 4000, freeMb: random.pick([0, 300, 900]) }],
        models: [
          { id: 'm', status: 'available' as const },
          ...['a', 'b', 'c'].map((id) => ({
            ...{ id, vramMb: random.pick([300, 600, 1000]), leases: random.pick([0, 0, 1, 3]) },
            lastUsedMs: random.pick([null, 0, 500_000, 990_000]),
          })),
        ],
      }));
      const view = toFleetView({ nodes, catalogue: [{ id: 'm', vramMb: random.pick([900, 1500]) }] });
      const request = { model: 'm', nowMs: 1_000_000 };
      const decision = route(view, request);
      const weighing = toWeighing(view, indexOf(view), request, 'm');
      const all = view.nodes.flatMap((node) => {
        const cold = considerCold(weighing, node, true);
        return cold === null || 'reason' in cold ? [] : [scoreOf(cold.terms)];
      });
      const least = all.length === 0 ? null : Math.min(...all);
      const found = decision.kind === 'load' ? scoreOf(decision.terms) : null;
      assert.equal(found, least, `fleet ${i}; TEST_SEED=${random.seed}`);
    }
  });

  test('the winner that is explained is the one that is routed to, and every node is named once', () => {
    each(500, 8, (view, request, note) => {
      const decision = route(view, request);
      const explained = explain(view, request);
      assert.deepEqual([explained.decision, explained.node], [decision.kind, chosen(decision)], note);
      const names = explained.candidates.map(({ node }) => node).sort();
      assert.deepEqual(names, view.nodes.map(({ name }) => name).sort(), note);
      const winners = explained.candidates.filter(({ verdict }) => verdict === 'chosen');
      assert.deepEqual(
        winners.map(({ node }) => node),
        decision.kind === 'reject' ? [] : [decision.node],
        note,
      );
      for (const { why, terms, verdict } of explained.candidates) {
        assert.ok(why.length > 3, note);
        assert.equal(terms === null, verdict === 'cannot', note);
      }
      if (decision.kind === 'reject') return;
      const [first] = explained.candidates;
      assert.deepEqual(first?.terms, decision.terms, note);
    });
  });

  test('an index kept by the fleet changes no decision', () => {
    each(400, 30, (view, request, note) => {
      const { index: _, ...plain } = view;
      assert.deepEqual(route(plain, request), route(view, request), note);
    });
  });
});
