/** Random fleets for property tests. */
import type { SeededRandom } from 'testkit/seeded-random';
import type { RouteRequest } from './route-request.ts';
import type { FleetSketch } from './to-fleet-view.ts';

const models = ['m0', 'm1', 'm2', 'm3', 'm4', 'm5'];

/** A fleet in any state it may be in, and one of its models. */
export function randomFleet(random: SeededRandom, nodesMax: number): FleetSketch {
  const int = (below: number): number => random.int(0, below - 1);
  const count = 1 + int(nodesMax);
  const names = Array.from({ length: count }, (_, i) => `n${String(i).padStart(4, '0')}`);
  const catalogue = models.slice(0, 5).map((id) => ({
    id,
    vramMb: random.chance(0.2) ? null : 500 + int(6000),
    minDevices: random.pick([1, 1, 1, 2, 3]),
    minDeviceVramMb: random.chance(0.2) ? 2000 : null,
    pinnedOn: random.chance(0.15) ? [random.pick(names), 'gone'] : [],
    residencyPriority: random.pick([50, 100, 100, 1000]),
    harness: random.chance(0.1) ? 'other' : 'llamacpp',
  }));
  const nodes = names.map((name) => ({
    name,
    healthy: random.chance(0.9),
    discovered: random.chance(0.95),
    cordoned: random.chance(0.05),
    devices: Array.from({ length: random.pick([1, 1, 2, 4]) }, () => {
      const totalMb = random.pick([2000, 4000, 8000]);
      return { totalMb, freeMb: random.chance(0.2) ? null : int(totalMb) };
    }),
    models: models
      .filter(() => random.chance(0.4))
      .map((id) => ({
        id,
        status: random.pick([
          'loaded',
          'loaded',
          'available',
          'loading',
          'failed',
          'recovering',
          'poisoned',
        ] as const),
        vramMb: random.chance(0.2) ? null : 500 + int(6000),
        leases: int(4),
        foreignLoad: int(4),
        slots: random.pick([null, 1, 4]),
        draining: random.chance(0.1),
        unservable: random.chance(0.1) ? 'out of memory' : null,
        lastUsedMs: random.chance(0.2) ? null : int(1_000_000),
      })),
    pending: random.chance(0.15) ? [random.pick(models)] : [],
  }));
  const rates = names.flatMap((node) =>
    models
      .filter(() => random.chance(0.3))
      .map((model) => ({
        ...{ node, model, prefillTokS: 50 + int(5000), serviceMs: 100 + int(20_000) },
        ...(random.chance(0.5) ? {} : { loadMs: 500 + int(60_000) }),
      })),
  );
  return { nodes, catalogue, rates, aliases: { alias: 'm0' } };
}

export function randomRequest(random: SeededRandom, sketch: FleetSketch): RouteRequest {
  const names = sketch.nodes.map(({ name }) => name);
  return {
    model: random.pick([...models, 'alias', 'unknown']),
    promptTokens: random.int(1, 20_000),
    nowMs: 1_000_000,
    ...(random.chance(0.3) ? { exclude: new Set([random.pick(names)]) } : {}),
    ...(random.chance(0.5) ? { cached: [{ node: random.pick(names), tokens: random.int(0, 19_999) }] } : {}),
  };
}
