/**
 * What the fleet's brain costs: a routing decision, and taking in the polls.
 *
 *   npm run bench:fleet [-- --nodes 1000 --models 10000]
 *
 * The fleet: every node holds 3 models in memory and 20 on disk; one model (`everywhere`) is resident on
 * all of them. `none free`: every node's memory is full, so that a cold load has to evict. `all busy`: so is
 * it, and all slots of all models are taken and used all the time; `queues full`: and so are their queues, on
 * all nodes but one. Decisions run on the gateway's own state (`FleetPicture`), and ask it who has a slot, as
 * the gateway does; in some cases a node changes before each, as polls do. Goals: below 50 us in the median
 * with 1,000 nodes and 10,000 models, and below 5 % of a core for polls every 10 s. Bytes are what the heap
 * grew by per decision.
 */
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { discoverySchema, healthSchema, neuronModelsSchema } from 'cortex-core/wire/neuron';
import { systemClock } from '../packages/cortex-core/dist/daemon/clock.js';
import { RateBook } from '../packages/cortex-gateway/dist/decide/rate-book.js';
import { route } from '../packages/cortex-gateway/dist/decide/route.js';
import { toCatalogue } from '../packages/cortex-gateway/dist/fleet/catalogue.js';
import { FleetPicture } from '../packages/cortex-gateway/dist/fleet/fleet-picture.js';
import { NodeState } from '../packages/cortex-gateway/dist/fleet/node-state.js';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '1000' },
    models: { type: 'string', default: '10000' },
    rounds: { type: 'string', default: '4000' },
  },
});
const nodeCount = Number(values.nodes);
const modelCount = Number(values.models);
const rounds = Number(values.rounds);
const pollSecs = 10;
const deviceMb = 24_000;

const nameOf = (i) => `node-${String(i).padStart(4, '0')}`;
const modelOf = (i) => `model-${String(((i % modelCount) + modelCount) % modelCount).padStart(5, '0')}`;
const sizeOf = (i) => 2000 + (i % 7) * 1000;

const catalogue = toCatalogue({
  models: Array.from({ length: modelCount }, (_, i) => ({
    id: modelOf(i),
    harness: 'llamacpp',
    vram_mb: sizeOf(i),
    min_devices: i % 10 === 9 ? 2 : 1,
    pinned_on: [],
    residency_priority: i % 20 === 0 ? 200 : 100,
    capabilities: [],
  })),
  aliases: {},
});

function discoveryOf(i) {
  const device = (index) => ({ index, name: 'gpu', kind: 'cuda', vram_total_mb: deviceMb });
  return {
    ...{ hostname: nameOf(i), os: 'linux', kernel: '6', cuda_version: '12', driver_version: '550' },
    devices: [device(0), device(1)],
    harnesses: ['llamacpp'],
  };
}

/** Resident models of a node: `everywhere`, and two of the others. */
const residentOf = (i) => ['everywhere', modelOf(i * 2), modelOf(i * 2 + 1)];

function rowsOf(i) {
  const row = (id, status) => ({
    ...{ id, harness: 'llamacpp', status, devices: status === 'loaded' ? [0] : [] },
    ...{ vram_used_mb: status === 'loaded' ? 4000 : null, vram_estimate_mb: 4000, capabilities: ['text'] },
    ...{ limit: { context: 32768, output: 8192 }, tool_call: true, reasoning: false, digest: null },
  });
  const onDisk = Array.from({ length: 20 }, (_, k) =>
    modelOf(modelCount / 2 + ((i * 20 + k) % (modelCount / 4))),
  );
  return [...residentOf(i).map((id) => row(id, 'loaded')), ...onDisk.map((id) => row(id, 'available'))];
}

/** Requests that run and that wait for each model of a node. */
function loadOf(i, round, kind) {
  if (kind === 'free' || kind === 'full') return [(i + round) % 3, 0];
  return [4, kind === 'queued' && i !== nodeCount - 1 ? 8 : (i + round) % 3];
}

function healthOf(i, round, kind) {
  const [running, waiting] = loadOf(i, round, kind);
  const freeMb = kind !== 'free' ? 100 : deviceMb - 12_000 - ((i * 37 + round) % 1000);
  const device = (index) => ({
    ...{ index, vram_used_mb: deviceMb - freeMb, vram_free_mb: freeMb, utilization_pct: 50, temp_c: 60 },
  });
  const load = (id) => ({
    ...{ id, in_flight: running, queue_depth: waiting, max_in_flight: 4, max_queue_depth: 8 },
    ...{ tok_s_prefill: 900 + (i % 100), tok_s_decode: 40 },
  });
  return {
    uptime_secs: 100 + round,
    devices: [device(0), device(1)],
    activation: { state: 'ready', pending: [], in_progress: null, completed: [], failed: [] },
    models: residentOf(i).map(load),
    loading: [],
  };
}

const service = { clock: systemClock, failuresMax: () => 5, onChange: () => {}, onCircuit: () => {} };

function buildFleet(kind) {
  const rates = new RateBook();
  const nodes = Array.from({ length: nodeCount }, (_, i) => {
    const node = new NodeState({ name: nameOf(i), endpoint: 'http://127.0.0.1' }, null, catalogue, service);
    node.discovery = discoverySchema.parse(discoveryOf(i));
    node.ingest(neuronModelsSchema.parse(rowsOf(i)));
    node.ingestHealth(healthSchema.parse(healthOf(i, 0, kind)));
    node.healthy = true;
    for (const model of residentOf(i)) {
      rates.note(node.name, model, 'prefillTokS', 900 + (i % 100));
      rates.note(node.name, model, 'serviceMs', 4000 + (i % 50));
    }
    return node;
  });
  const nowMs = () => 1_000_000;
  const rules = { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 };
  const habits = { gapMs: 2000, residentSinceMs: 0, idleSinceMs: null };
  const turns = { rules: () => rules, habits: () => habits, waiting: () => 0 };
  const sources = { rates, nowMs, turns };
  const picture = new FleetPicture(sources, { nodes, catalogue, strategy: 'lru' });
  return { nodes, picture };
}

function measure(work) {
  for (let i = 0; i < rounds / 4; i++) work(i);
  global.gc?.();
  const times = new Float64Array(rounds);
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    work(i);
    times[i] = performance.now() - start;
  }
  const bytes = (process.memoryUsage().heapUsed - before) / rounds;
  times.sort();
  const at = (share) => times[Math.floor(share * (rounds - 1))] * 1000;
  return { median: at(0.5), p99: at(0.99), bytes };
}

function decisionRows(label, kind) {
  const { nodes, picture } = buildFleet(kind);
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const hasSlot = (node, model) => byName.get(node).hasSlot(model);
  // node.changed as a poll leaves it; the decision mends the index
  const ask = (pick, changes) => (i) => {
    if (changes) nodes[(i * 7919) % nodeCount].changed();
    const request = { model: pick(i), promptTokens: 2000, nowMs: 1_000_000, hasSlot };
    const decision = route(picture.view(), request);
    if (decision.kind === 'reject') throw new Error(decision.message);
    kinds.add(decision.kind);
  };
  const kinds = new Set();
  // neither resident nor on a disk
  const coldModel = (i) => modelOf(nodeCount * 2 + (i % Math.max(1, modelCount / 4)));
  const cases = [
    ['resident model', (i) => modelOf(i % (nodeCount * 2)), false],
    ['resident on every node', () => 'everywhere', false],
    ['cold placement', coldModel, false],
    ['resident on every node, a node changed before', () => 'everywhere', true],
    ['resident, a node changed before', (i) => modelOf(i % (nodeCount * 2)), true],
    ['cold, a node changed before', coldModel, true],
  ];
  return cases.map(([name, pick, changes]) => {
    kinds.clear();
    const { median, p99, bytes } = measure(ask(pick, changes));
    return [`${name}, ${label}`, [...kinds].join('/'), us(median), us(p99), Math.max(0, Math.round(bytes))];
  });
}

function pollRow() {
  const { nodes, picture } = buildFleet('free');
  const texts = nodes.map((_, i) => [JSON.stringify(rowsOf(i)), JSON.stringify(healthOf(i, 1, 'free'))]);
  const once = (i) => {
    const node = nodes[i % nodeCount];
    const [rows, health] = texts[i % nodeCount];
    node.ingest(neuronModelsSchema.parse(JSON.parse(rows)));
    node.ingestHealth(healthSchema.parse(JSON.parse(health)));
    picture.view();
  };
  const usage = process.cpuUsage();
  const { median, p99, bytes } = measure(once);
  const { user, system } = process.cpuUsage(usage);
  const perPollUs = (user + system) / (rounds * 1.25);
  const core = (perPollUs * nodeCount) / (pollSecs * 1e6);
  return {
    row: ['one poll taken in', 'poll', us(median), us(p99), Math.round(bytes)],
    core: `${(core * 100).toFixed(2)} % of a core for ${nodeCount} nodes every ${pollSecs} s`,
  };
}

const us = (value) => value.toFixed(1);

function print(rows) {
  const all = [['', 'decides', 'median us', 'p99 us', 'bytes'], ...rows];
  const widths = all[0].map((_, k) => Math.max(...all.map((row) => String(row[k]).length)));
  for (const row of all) {
    const cells = row.map((cell, k) =>
      k < 2 ? String(cell).padEnd(widths[k]) : String(cell).padStart(widths[k]),
    );
    console.log(cells.join('  ').trimEnd());
  }
}

console.log(`${nodeCount} nodes, ${modelCount} models, ${rounds} rounds, node ${process.version}`);
const kinds = { 'memory free': 'free', 'none free': 'full', 'all busy': 'busy', 'queues full': 'queued' };
const rows = Object.entries(kinds).flatMap(([label, kind]) => decisionRows(label, kind));
const poll = pollRow();
print([...rows, poll.row]);
console.log(poll.core);
