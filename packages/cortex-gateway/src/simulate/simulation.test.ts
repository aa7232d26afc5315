import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { EvictionStrategy } from '../decide/fleet-view.ts';
import type { TurnRules } from '../decide/turns.ts';
import { waitBoundMs } from '../decide/wait-bound.ts';
import { diurnal } from './diurnal-trace.ts';
import { entryOf, nodesOf, type Scenario, TraceWriter } from './scenario.ts';
import { type SimulationResult, simulate } from './simulation.ts';
import { generateTrace, traceNames } from './traces.ts';

const rules: TurnRules = { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 };
const unloadMs = 500;
const run = (scenario: Scenario, strategy: EvictionStrategy = 'lru', turns = rules): SimulationResult =>
  simulate({ fleet: { ...scenario, unloadMs }, trace: scenario.requests, strategy, rules: turns });
const swapsOf = ({ swaps }: SimulationResult): number => swaps.idle + swaps.due + swaps.asked;

describe('simulate()', () => {
  test('one request waits for its load and no longer', () => {
    const writer = new TraceWriter(1);
    writer.at(1, 'm', { prompt: 2000, completion: 40 });
    const result = run({ nodes: nodesOf('n', 1), models: [entryOf('m', 10_000)], requests: writer.done() });
    const [outcome] = result.outcomes;
    assert.equal(outcome?.waitMs, 10_000);
    assert.equal(outcome?.firstTokenMs, 11_000);
    assert.equal(result.endMs, 13_000);
    assert.equal(result.loads, 1);
  });

  test('A and B at the pace of their answers: every request is served, each by one swap', () => {
    const writer = new TraceWriter(1);
    let last = writer.at(0, 'a', { prompt: 100, completion: 10 });
    for (let i = 1; i < 40; i++) {
      last = writer.after([last], 1, i % 2 === 0 ? 'a' : 'b', { prompt: 100, completion: 10 });
    }
    const models = [entryOf('a', 20_000), entryOf('b', 20_000)];
    const result = run({ nodes: nodesOf('n', 1), models, requests: writer.done() });
    assert.equal(result.outcomes.length, 40);
    assert.equal(swapsOf(result), 39);
    // a load of 20 s, an unload, and once the residency of a model whose habits were not known
    assert.ok(Math.max(...result.outcomes.map((each) => each.waitMs)) <= 20_000 + unloadMs + 20_000);
  });

  test('an orchestrator with two workers swaps twice a round, not at each call', () => {
    const scenario = generateTrace('orchestrator', 7);
    const result = run(scenario);
    assert.equal(result.rejected.length, 0);
    const calls = scenario.requests.filter((each) => each.model === 'worker-14b').length;
    assert.ok(calls > 90);
    assert.ok(swapsOf(result) <= 2 * 12 + 2, `${swapsOf(result)} swaps`);
  });

  test('a request that can never fit is refused, and nothing is evicted for it', () => {
    const writer = new TraceWriter(1);
    writer.at(0, 'm', { prompt: 1, completion: 1 });
    const huge = writer.at(60, 'huge', { prompt: 1, completion: 1 });
    writer.after([huge], 1, 'm', { prompt: 1, completion: 1 });
    const models = [entryOf('m', 10_000), entryOf('huge', 99_000)];
    const result = run({ nodes: nodesOf('n', 1), models, requests: writer.done() });
    assert.match(result.rejected[0]?.reason ?? '', /needs 99000 MiB/);
    assert.deepEqual([result.outcomes.length, result.evictions], [2, 0]);
  });

  test('the same seed makes the same trace, another one another', () => {
    for (const name of traceNames.filter((each) => each !== 'diurnal')) {
      assert.deepEqual(generateTrace(name, 3), generateTrace(name, 3));
      assert.notDeepEqual(generateTrace(name, 3).requests, generateTrace(name, 4).requests);
    }
  });

  test('every request of every trace is served, whatever the strategy', () => {
    for (const name of traceNames.filter((each) => each !== 'diurnal')) {
      for (const strategy of ['lru', 'priority', 'cost'] as const) {
        const scenario = generateTrace(name, 11);
        assert.equal(run(scenario, strategy).outcomes.length, scenario.requests.length, name);
      }
    }
    const day = diurnal(5, { nodes: 30, models: 200, requests: 2000 });
    assert.equal(run(day).outcomes.length, 2000);
  });
});

describe('what is promised to those that wait', () => {
  test('over random arrivals nobody waits longer than the bound, and swaps stay below their count', () => {
    const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
    console.log(`TEST_SEED=${seed}`);
    const dice = new TraceWriter(seed);
    for (let round = 0; round < 60; round++) {
      const trace = randomContest(dice);
      const result = run(trace.scenario, dice.pick(['lru', 'priority', 'cost'] as const), trace.rules);
      const where = `TEST_SEED=${seed} round ${round}`;
      assert.equal(result.outcomes.length, trace.scenario.requests.length, where);
      for (const outcome of result.outcomes) {
        const boundMs = waitBoundMs({ ...trace.bound, ahead: outcome.ahead });
        assert.ok(outcome.waitMs <= boundMs + 1e-6, `${where}: ${outcome.waitMs} > ${boundMs}`);
      }
      const waited = result.outcomes.filter((outcome) => outcome.waitMs > 0).length;
      assert.ok(swapsOf(result) <= waited, `${where}: ${swapsOf(result)} swaps for ${waited} that waited`);
      const { residencyLeastMs, loadLeastMs } = trace;
      const most = 1 + Math.floor(result.endMs / (residencyLeastMs + loadLeastMs));
      assert.ok(result.swaps.due <= most, `${where}: ${result.swaps.due} > ${most}`);
    }
  });
});

/** Models of which one at a time fits, more requests than the machine can serve, at random times. */
function randomContest(dice: TraceWriter) {
  const count = 2 + Math.floor(dice.random() * 4);
  const slots = 1 + Math.floor(dice.random() * 4);
  const rate = 500 + dice.random() * 2000;
  const models = Array.from({ length: count }, (_, i) =>
    entryOf(`m${i}`, Math.floor(12_500 + dice.random() * 11_000)),
  );
  const writer = new TraceWriter(Math.floor(dice.random() * 2 ** 31));
  const requests = 20 + Math.floor(dice.random() * 150);
  const span = 30 + dice.random() * 2000;
  let serviceMs = 0;
  for (let i = 0; i < requests; i++) {
    const tokens = {
      prompt: Math.floor(writer.random() * 4000),
      completion: Math.floor(writer.random() * 400),
    };
    serviceMs = Math.max(serviceMs, tokens.prompt / 2 + tokens.completion * 25);
    const who = {
      key: `k${Math.floor(writer.random() * 3)}`,
      session: `s${Math.floor(writer.random() * 3)}`,
      priority: Math.floor(writer.random() * 7) - 3,
    };
    writer.at(writer.random() * span, writer.pick(models).id, { ...tokens, ...who });
  }
  const turns: TurnRules = {
    maxWaitMs: dice.random() * 90_000,
    residencyFactor: dice.random() * 2,
    residencyMaxMs: dice.random() * 40_000,
  };
  const loads = models.map((model) => ((model.vramMb ?? 0) / rate) * 1000);
  const stays = loads.map((ms) => Math.min(ms * turns.residencyFactor, turns.residencyMaxMs));
  return {
    scenario: { nodes: nodesOf('n', 1, { slots, loadMbPerSec: rate }), models, requests: writer.done() },
    rules: turns,
    bound: {
      maxWaitMs: turns.maxWaitMs,
      models: count,
      loadMs: Math.max(...loads) + unloadMs,
      residencyMs: Math.max(...stays),
      serviceMs,
      slots,
    },
    residencyLeastMs: Math.min(...stays),
    loadLeastMs: Math.min(...loads),
  };
}
