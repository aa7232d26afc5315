/** Random fleets for property tests. `TEST_SEED` brings a failure back. */
import type { RouteRequest } from './route-request.ts';
import type { FleetSketch } from './to-fleet-view.ts';

export interface Seeded {
  readonly seed: number;
  /** 0 <= x < 1. */
  readonly random: () => number;
  readonly pick: <T>(from: readonly T[]) => T;
  /** A failure's message with the seed in it. */
  readonly note: (text: string) => string;
}

export function seeded(seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))): Seeded {
  let state = seed >>> 0;
  // xorshift32 cannot leave zero
  if (state === 0) state = 1;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  return {
    seed,
    random,
    pick: (from) => {
      const found = from[Math.floor(random() * from.length)];
      if (found === undefined) throw new Error('nothing to pick from');
      return found;
    },
    note: (text) => `${text}; TEST_SEED=${seed}`,
  };
}

const models = ['m0', 'm1', 'm2', 'm3', 'm4', 'm5'];

/** A fleet in any state it may be in, and one of its models. */
export function randomFleet({ random, pick }: Seeded, nodesMax: number): FleetSketch {
  const int = (below: number): number => Math.floor(random() * below);
  const count = 1 + int(nodesMax);
  const names = Array.from({ length: count }, (_, i) => `n${String(i).padStart(4, '0')}`);
  const catalogue = models.slice(0, 5).map((id) => ({
    id,
    vramMb: random() < 0.2 ? null : 500 + int(6000),
    minDevices: pick([1, 1, 1, 2, 3]),
    minDeviceVramMb: random() < 0.2 ? 2000 : null,
    pinnedOn: random() < 0.15 ? [pick(names), 'gone'] : [],
    residencyPriority: pick([50, 100, 100, 1000]),
    harness: random() < 0.1 ? 'other' : 'llamacpp',
  }));
  const nodes = names.map((name) => ({
    name,
    healthy: random() < 0.9,
    discovered: random() < 0.95,
    cordoned: random() < 0.05,
    devices: Array.from({ length: pick([1, 1, 2, 4]) }, () => {
      const totalMb = pick([2000, 4000, 8000]);
      return { totalMb, freeMb: random() < 0.2 ? null : int(totalMb) };
    }),
    models: models
      .filter(() => random() < 0.4)
      .map((id) => ({
        id,
        status: pick([
          'loaded',
          'loaded',
          'available',
          'loading',
          'failed',
          'recovering',
          'poisoned',
        ] as const),
        vramMb: random() < 0.2 ? null : 500 + int(6000),
        leases: int(4),
        foreignLoad: int(4),
        slots: pick([null, 1, 4]),
        draining: random() < 0.1,
        unservable: random() < 0.1 ? 'out of memory' : null,
        lastUsedMs: random() < 0.2 ? null : int(1_000_000),
      })),
    pending: random() < 0.15 ? [pick(models)] : [],
  }));
  const rates = names.flatMap((node) =>
    models
      .filter(() => random() < 0.3)
      .map((model) => ({
        ...{ node, model, prefillTokS: 50 + int(5000), serviceMs: 100 + int(20_000) },
        ...(random() < 0.5 ? {} : { loadMs: 500 + int(60_000) }),
      })),
  );
  return { nodes, catalogue, rates, aliases: { alias: 'm0' } };
}

export function randomRequest({ random, pick }: Seeded, sketch: FleetSketch): RouteRequest {
  const names = sketch.nodes.map(({ name }) => name);
  return {
    model: pick([...models, 'alias', 'unknown']),
    promptTokens: 1 + Math.floor(random() * 20_000),
    nowMs: 1_000_000,
    ...(random() < 0.3 ? { exclude: new Set([pick(names)]) } : {}),
    ...(random() < 0.5 ? { cached: [{ node: pick(names), tokens: Math.floor(random() * 20_000) }] } : {}),
  };
}
