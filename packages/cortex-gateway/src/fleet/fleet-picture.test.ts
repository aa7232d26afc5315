import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { discoverySchema, healthSchema, neuronModelsSchema } from 'cortex-core/wire/neuron';
import { RateBook } from '../decide/rate-book.ts';
import { route } from '../decide/route.ts';
import type { NeuronClient } from '../upstream/neuron-client.ts';
import { toCatalogue } from './catalogue.ts';
import { FleetPicture } from './fleet-picture.ts';
import { NodeState } from './node-state.ts';

const catalogue = toCatalogue(modelsConfigSchema.parse({ models: [{ id: 'm', vram_mb: 1000 }] }));

function createNode(name: string, freeMb: number): NodeState {
  const node = new NodeState(
    { name, endpoint: 'http://127.0.0.1' },
    null as unknown as NeuronClient,
    catalogue,
    {
      ...{
        clock: { ...systemClock, monotonicMs: () => 50_000 },
        failuresMax: () => 0,
        onChange: () => {},
        onCircuit: () => {},
      },
    },
  );
  node.discovery = discoverySchema.parse({
    ...{ hostname: name, os: 'linux', kernel: '6', cuda_version: null, driver_version: null },
    devices: [{ index: 0, name: 'gpu', vram_total_mb: 8000 }],
    harnesses: ['llamacpp'],
  });
  node.healthy = true;
  node.ingestHealth(health(freeMb));
  return node;
}

const health = (freeMb: number, loading: object[] = []) =>
  healthSchema.parse({
    uptime_secs: 1,
    devices: [{ index: 0, vram_used_mb: 0, vram_free_mb: freeMb, utilization_pct: null, temp_c: null }],
    activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
    models: [{ id: 'm', in_flight: 1, queue_depth: 0, max_in_flight: 4 }],
    loading,
  });

const rows = (status: string) => neuronModelsSchema.parse([{ id: 'm', status, devices: [0] }]);

function setup() {
  const nodes = [createNode('a', 500), createNode('b', 4000)];
  const [a, b] = nodes as [NodeState, NodeState];
  const facts = { nodes, catalogue, strategy: 'lru' as const };
  const turns = {
    rules: () => ({ maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 }),
    ...{ habits: () => undefined, waiting: () => 0 },
  };
  const picture = new FleetPicture({ rates: new RateBook(), turns, nowMs: () => 50_000 }, facts);
  const told = (nowMs = 50_000): string => {
    const decision = route(picture.view(), { model: 'm', nowMs });
    return decision.kind === 'reject' ? decision.code : `${decision.kind} ${decision.node}`;
  };
  return { a, b, facts, picture, told };
}

describe('FleetPicture', () => {
  test('follows polls, leases, drains and health without being made anew', () => {
    const { a, b, picture, told } = setup();
    const view = picture.view();
    assert.equal(told(), 'load b');
    a.ingest(rows('loaded'));
    assert.equal(told(), 'forward a');
    b.ingest(rows('loaded'));
    a.lease('m', 1);
    assert.equal(told(), 'forward b');
    a.release('m', 2);
    assert.equal(told(), 'forward a');
    assert.equal(picture.view().nodes[0]?.models.get('m')?.lastUsedMs, 2);
    a.drain('m', true);
    assert.equal(told(), 'forward b');
    b.healthy = false;
    b.changed();
    assert.equal(told(), 'wait a');
    assert.equal(picture.view(), view);
  });

  test('a lease alone makes nothing anew', () => {
    const { a, picture } = setup();
    a.ingest(rows('loaded'));
    const before = picture.view().nodes[0];
    a.lease('m', 1);
    assert.equal(picture.view().nodes[0], before);
    assert.equal(before?.models.get('m')?.leases, 1);
  });

  test('knows since when a load runs, when it is said to be up, and who waits for it', () => {
    const { b, picture } = setup();
    let waiting = 0;
    b.setPending(['m'], () => waiting);
    b.setStatus('m', 'm', 'loading');
    const coming = () => picture.view().nodes[1]?.coming?.get('m');
    assert.deepEqual({ ...coming() }, { sinceMs: 50_000, readyMs: null, waiting: 0 });
    waiting = 3;
    assert.equal(coming()?.waiting, 3);
    b.ingestHealth(health(4000, [{ model_id: 'm', phase: 'loading', percent: 50, eta_secs: 8 }]));
    assert.equal(coming()?.readyMs, 58_000);
  });

  test('takes other nodes and another catalogue; one that left changes nothing any more', () => {
    const { a, b, facts, picture, told } = setup();
    picture.replace({ ...facts, nodes: [a], catalogue: toCatalogue(modelsConfigSchema.parse({})) });
    assert.equal(told(), 'model_not_found');
    b.ingest(rows('loaded'));
    assert.equal(told(), 'model_not_found');
    a.ingest(rows('loaded'));
    assert.equal(told(), 'forward a');
  });
});
