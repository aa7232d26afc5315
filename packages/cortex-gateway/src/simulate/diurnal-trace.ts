import type { CatalogueEntry } from '../decide/fleet-view.ts';
import { entryOf, nodesOf, type Scenario, TraceWriter } from './scenario.ts';

export interface DiurnalSize {
  readonly nodes: number;
  readonly models: number;
  readonly requests: number;
}

const daySecs = 86_400;
/** MiB of the models, the small ones more often. */
const sizesMb = [1500, 3000, 5000, 5000, 9000, 9000, 13_000, 20_000];

/**
 * A day of a large fleet: requests follow the sun, three quarters of them within sessions that stay with a
 * model, models by a power law of popularity, machines of three sizes.
 */
export function diurnal(seed: number, size: DiurnalSize): Scenario {
  const writer = new TraceWriter(seed);
  const models: CatalogueEntry[] = Array.from({ length: size.models }, (_, i) =>
    entryOf(`m${String(i + 1).padStart(5, '0')}`, writer.pick(sizesMb)),
  );
  const third = Math.floor(size.nodes / 3);
  const nodes = [
    ...nodesOf('large', third, { devicesMb: [24_000], loadMbPerSec: 2000, prefillTokensPerSec: 4000 }),
    ...nodesOf('medium', third, { devicesMb: [12_000] }),
    ...nodesOf('small', size.nodes - 2 * third, { devicesMb: [12_000], loadMbPerSec: 400 }),
  ];
  for (let left = size.requests; left > 0; ) {
    const model = models[popular(writer, models.length)] as CatalogueEntry;
    const turns = Math.min(left, 1 + Math.floor(writer.exponential(3)));
    const who = { key: `k${Math.floor(writer.random() * 500)}`, session: `s${left}` };
    let last = writer.at(timeOfDay(writer), model.id, { prompt: 800, completion: 150, ...who });
    for (let turn = 1; turn < turns; turn++) {
      const pause = 5 + writer.exponential(60);
      const tokens = { prompt: 800 + turn * 300, completion: 150, ...who };
      last = writer.after([last], pause, model.id, tokens);
    }
    left -= turns;
  }
  return { nodes, models, requests: writer.done() };
}

/** Index by a power law: the first tenth of the models gets about a third of the sessions. */
function popular(writer: TraceWriter, count: number): number {
  return Math.min(count - 1, Math.floor(count * writer.random() ** 2.2));
}

/** Seconds since midnight: most at three in the afternoon, next to nothing twelve hours later. */
function timeOfDay(writer: TraceWriter): number {
  for (;;) {
    const at = writer.random() * daySecs;
    const load = 0.5 + 0.5 * Math.cos(((at - 15 * 3600) / daySecs) * 2 * Math.PI);
    if (writer.random() < load) return at;
  }
}
