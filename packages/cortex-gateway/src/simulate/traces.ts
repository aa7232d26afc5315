/**
 * Traces and fleets to compare strategies on. Each is made from a seed: the same seed makes the same trace.
 */
import type { CatalogueEntry } from '../decide/fleet-view.ts';
import { diurnal } from './diurnal-trace.ts';
import { entryOf, nodesOf, type Scenario, TraceWriter } from './scenario.ts';

export const traceNames = ['alternation', 'chat-embedding', 'orchestrator', 'agents', 'diurnal'] as const;
export type TraceName = (typeof traceNames)[number];

export function generateTrace(name: TraceName, seed: number): Scenario {
  switch (name) {
    case 'alternation':
      return alternation(seed);
    case 'chat-embedding':
      return chatAndEmbedding(seed);
    case 'orchestrator':
      return orchestrator(seed);
    case 'agents':
      return agents(seed);
    case 'diurnal':
      return diurnal(seed, { nodes: 1000, models: 10_000, requests: 20_000 });
    default:
      return name satisfies never;
  }
}

/** One client asks A, then B, then A; another one comes by with a small model every few minutes. */
function alternation(seed: number): Scenario {
  const writer = new TraceWriter(seed);
  let last: string | null = null;
  for (let i = 0; i < 40; i++) {
    const model = i % 2 === 0 ? 'a-14b' : 'b-14b';
    const tokens = { prompt: 1500, completion: 200 };
    last = last === null ? writer.at(0, model, tokens) : writer.after([last], 2, model, tokens);
  }
  for (let at = 60; at < 1500; at += 150 + writer.random() * 150) {
    writer.at(at, 'small-3b', { prompt: 300, completion: 50, key: 'other' });
  }
  const models = [entryOf('a-14b', 14_000), entryOf('b-14b', 14_000), entryOf('small-3b', 3000)];
  return { nodes: nodesOf('gpu', 1, { devicesMb: [24_000] }), models, requests: writer.done() };
}

/** Chat all the time, embeddings in bursts, a coder and a long-document model now and then. */
function chatAndEmbedding(seed: number): Scenario {
  const writer = new TraceWriter(seed);
  const hour = 3600;
  for (let at = 0; at < 2 * hour; at += writer.exponential(15)) {
    writer.at(at, 'chat-8b', { prompt: 800, completion: 200, key: 'chat' });
  }
  for (let at = 30; at < 2 * hour; at += writer.exponential(240)) {
    for (let i = 0; i < 20; i++)
      writer.at(at + i * 0.3, 'embed', { prompt: 500, completion: 0, key: 'index' });
  }
  for (let at = 100; at < 2 * hour; at += writer.exponential(400)) {
    writer.at(at, 'coder-14b', { prompt: 3000, completion: 400, key: 'code' });
  }
  for (let at = 200; at < 2 * hour; at += writer.exponential(900)) {
    writer.at(at, 'long-12b', { prompt: 9000, completion: 300, key: 'docs' });
  }
  const models = [
    entryOf('chat-8b', 9000),
    entryOf('embed', 1500),
    entryOf('coder-14b', 11_000),
    entryOf('long-12b', 10_000),
  ];
  return { nodes: nodesOf('gpu', 1, { devicesMb: [24_000] }), models, requests: writer.done() };
}

/** An orchestrator plans, two workers make calls with pauses between them, the orchestrator reads them. */
function orchestrator(seed: number): Scenario {
  const writer = new TraceWriter(seed);
  let plan = writer.at(0, 'planner-32b', { prompt: 4000, completion: 400, key: 'plan' });
  for (let round = 0; round < 12; round++) {
    const ends = ['w1', 'w2'].map((session) => {
      let last = plan;
      const calls = 3 + Math.floor(writer.random() * 4);
      for (let i = 0; i < calls; i++) {
        const pause = 0.5 + writer.random() * 2.5;
        last = writer.after([last], pause, 'worker-14b', {
          prompt: 2000 + i * 400,
          completion: 150,
          key: 'work',
          session,
        });
      }
      return last;
    });
    plan = writer.after(ends, 1, 'planner-32b', { prompt: 6000, completion: 400, key: 'plan' });
  }
  for (let at = 50; at < 1500; at += writer.exponential(200)) {
    writer.at(at, 'title-1b', { prompt: 400, completion: 20, key: 'titles' });
  }
  const models = [entryOf('planner-32b', 20_000), entryOf('worker-14b', 13_000), entryOf('title-1b', 1500)];
  return { nodes: nodesOf('gpu', 1, { devicesMb: [24_000] }), models, requests: writer.done() };
}

/** Two machines, eight models, and agents that come in bursts and each use a few of them for a while. */
function agents(seed: number): Scenario {
  const writer = new TraceWriter(seed);
  const models: CatalogueEntry[] = [
    entryOf('chat-8b', 9000),
    entryOf('coder-14b', 12_000),
    entryOf('coder-32b', 21_000),
    entryOf('vision-12b', 11_000),
    entryOf('embed', 1500),
    entryOf('rerank', 1500),
    entryOf('small-3b', 3500),
    entryOf('small-4b', 4500),
  ];
  for (let burst = 0; burst < 12; burst++) {
    const start = burst * 300 + writer.random() * 120;
    const agentCount = 2 + Math.floor(writer.random() * 4);
    for (let agent = 0; agent < agentCount; agent++) {
      const own = [writer.pick(models).id, writer.pick(models).id, 'small-3b'];
      const who = { key: `team-${agent % 3}`, session: `${burst}-${agent}` };
      let last = writer.at(start + writer.random() * 10, own[0] as string, {
        prompt: 2000,
        completion: 200,
        ...who,
      });
      for (let i = 0; i < 8; i++) {
        const model = writer.random() < 0.6 ? (own[0] as string) : writer.pick(own);
        last = writer.after([last], 0.5 + writer.random() * 4, model, {
          prompt: 1000 + i * 500,
          completion: 100 + Math.floor(writer.random() * 200),
          ...who,
        });
      }
    }
  }
  return { nodes: nodesOf('gpu', 2, { devicesMb: [24_000] }), models, requests: writer.done() };
}
