/**
 * A fleet in small, at its worst: random requests that are aborted, nodes that die and come back as others,
 * loads, evictions and defragmentations among them. What must be true afterwards is that nothing is left.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import {
  answerWords,
  type ChatCall,
  chatStream,
  FakeNeuron,
  type FakeNeuronOptions,
} from 'testkit/fake-neuron';
import { SeededRandom } from 'testkit/seeded-random';
import { type Gateway, startGateway } from '../gateway.ts';

const requestsMax = 300;
const atOnce = 12;
const heapGrowthMbMax = 24;
const models = ['a', 'b', 'c', 'd', 'e', 'f'];

const cleanups: (() => Promise<void>)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

test('300 requests, aborts, deaths, loads and evictions leave nothing behind', async () => {
  const random = new SeededRandom();
  console.log(`TEST_SEED=${random.seed}`);
  const fleet = await SoakFleet.start(random);
  cleanups.push(() => fleet.close());
  const outcomes = new Map<string, number>();
  let heapMb = 0;
  for (let sent = 0; sent < requestsMax; sent += atOnce) {
    const work = Array.from({ length: atOnce }, () => fleet.request());
    if (random.chance(0.5)) work.push(fleet.disturb());
    for (const outcome of await Promise.all(work)) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    // the first third fills caches and compiles
    if (sent === 8 * atOnce) heapMb = usedHeapMb();
  }
  const seen = `TEST_SEED=${random.seed}: ${JSON.stringify([...outcomes])}`;
  console.log(seen);
  await fleet.settle();
  assert.deepEqual(fleet.held(), { waiting: 0, leases: 0, pending: 0, draining: 0 }, seen);
  assert.equal(outcomes.get('cut') ?? 0, 0, `a stream ended without a word; ${seen}`);
  assert.ok((outcomes.get('whole') ?? 0) > requestsMax / 4, seen);
  assert.ok(usedHeapMb() - heapMb < heapGrowthMbMax, `from ${heapMb} to ${usedHeapMb()} MiB; ${seen}`);
  for (const model of models) assert.equal(await fleet.request(model, false), 'whole', `${model} ${seen}`);
});

class SoakFleet {
  readonly #random: SeededRandom;
  readonly #neurons: FakeNeuron[];
  readonly #gateway: Gateway;
  #calm = false;

  private constructor(random: SeededRandom, neurons: FakeNeuron[], gateway: Gateway) {
    this.#random = random;
    this.#neurons = neurons;
    this.#gateway = gateway;
    for (const neuron of neurons) this.#misbehave(neuron);
  }

  static async start(random: SeededRandom): Promise<SoakFleet> {
    const neurons = [0, 1, 2].map((i) => new FakeNeuron(optionsOf(i)));
    await Promise.all(neurons.map((neuron) => neuron.listen()));
    const gateway = await startGateway(
      cortexConfigSchema.parse({
        gateway: {
          listen: '127.0.0.1:0',
          metrics_listen: '127.0.0.1:0',
          poll_interval_secs: 0.2,
          poll_timeout_secs: 1,
          cold_load_wait_secs: 5,
        },
        eviction: { defrag_after_cycles: 5 },
        neurons: neurons.map((neuron, i) => ({ name: `n${i}`, endpoint: neuron.url })),
      }),
      modelsConfigSchema.parse({}),
      { log: silentLog },
    );
    return new SoakFleet(random, neurons, gateway);
  }

  async close(): Promise<void> {
    await this.#gateway.close();
    await Promise.all(this.#neurons.map((neuron) => neuron.close()));
  }

  /** How it ended: `whole`, `error`, `aborted`, or `cut`, which must not be. */
  async request(model = this.#random.pick(models), mayAbort = true): Promise<string> {
    const stream = this.#random.chance(0.5);
    const leave = new AbortController();
    const isLeaving = mayAbort && this.#random.chance(0.3);
    // some before the gateway has read the request, some in the middle of the answer
    if (isLeaving) afterTurns(this.#random.int(0, 40), () => leave.abort());
    try {
      const answer = await fetch(`${this.#gateway.url}/v1/chat/completions`, {
        method: 'POST',
        body: JSON.stringify({ model, stream, messages: [{ role: 'user', content: 'hi' }] }),
        signal: leave.signal,
      });
      const text = await answer.text();
      if (!stream || answer.status !== 200) return answer.status === 200 ? 'whole' : 'error';
      if (text.includes('data: {"error"')) return text.includes('[DONE]') ? 'cut' : 'error';
      return text.includes('[DONE]') ? 'whole' : 'cut';
    } catch {
      if (leave.signal.aborted) return 'aborted';
      return stream ? 'cut' : 'error';
    }
  }

  async disturb(): Promise<string> {
    const { fleet } = this.#gateway;
    const at = this.#random.int(0, 2);
    const kind = this.#random.pick(['die', 'load', 'unload', 'defrag', 'poll']);
    const model = this.#random.pick(models);
    try {
      if (kind === 'die') await this.#replace(at);
      if (kind === 'load') await fleet.operations.load(model, `n${at}`);
      if (kind === 'unload') await fleet.operations.unload(model, null);
      if (kind === 'defrag') await fleet.operations.defrag(`n${at}`, null);
      if (kind === 'poll') await fleet.pollNow(`n${at}`);
      return kind;
    } catch {
      return `${kind} refused`;
    }
  }

  /** Every node answers as it should and has been polled. */
  async settle(): Promise<void> {
    this.#calm = true;
    const { fleet } = this.#gateway;
    for (let round = 0; round < 2000; round++) {
      await Promise.all([0, 1, 2].map((i) => fleet.pollNow(`n${i}`)));
      const { pending, draining } = this.held();
      if (fleet.view().nodes.every((node) => node.healthy) && pending + draining === 0) return;
    }
  }

  held() {
    const { nodes } = this.#gateway.fleet.view();
    const rows = nodes.flatMap((node) => [...node.models.values()]);
    return {
      waiting: this.#gateway.fleet.waitingCount,
      leases: rows.reduce((total, row) => total + row.leases, 0),
      pending: nodes.reduce((total, node) => total + node.pending.length, 0),
      draining: rows.filter((row) => row.draining).length,
    };
  }

  async #replace(at: number): Promise<void> {
    const old = this.#neurons[at];
    if (old === undefined) return;
    const { port } = old;
    await old.close();
    const next = new FakeNeuron(optionsOf(at));
    this.#misbehave(next);
    await next.listen(port);
    this.#neurons[at] = next;
  }

  #misbehave(neuron: FakeNeuron): void {
    const random = this.#random;
    const sometimes = (p: number): boolean => !this.#calm && random.chance(p);
    const refusal = { status: 503, body: { error: 'told to fail', code: 'insufficient_vram' } };
    neuron.onLoad = () => (sometimes(0.1) ? refusal : undefined);
    neuron.onUnload = () => (sometimes(0.05) ? refusal : undefined);
    neuron.onMove = () => (sometimes(0.2) ? refusal : undefined);
    neuron.onRecycle = () => (sometimes(0.2) ? refusal : undefined);
    neuron.onChat = (call) => {
      if (sometimes(0.08))
        return refuse(call, random.pick(['device_gone', 'model_recovering', 'overloaded']));
      if (sometimes(0.05)) return breakOff(call);
      afterTurns(this.#calm ? 0 : random.int(0, 30), () => {
        if (!call.response.destroyed) answerWords(call, ['one', ' two', ' three']);
      });
    };
  }
}

function optionsOf(i: number): FakeNeuronOptions {
  const rows = models.map((id, at) => ({ id, vramMb: 300 + 50 * at, devices: [0] }));
  return { name: `n${i}`, devices: i === 2 ? [600, 600] : [1000], models: rows };
}

function refuse({ response }: ChatCall, code: string): void {
  response.writeHead(503, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ error: { message: code, type: 'server_error', code } }));
}

/** A stream of which only the first half comes. */
function breakOff({ response }: ChatCall): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const whole = chatStream('m', ['one', ' two', ' three']);
  response.write(whole.slice(0, whole.length / 2), () => response.destroy());
}

/** Turns of the event loop: later than what is under way, and no clock. */
function afterTurns(turns: number, then: () => void): void {
  if (turns === 0) then();
  else setImmediate(() => afterTurns(turns - 1, then));
}

function usedHeapMb(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return Math.round(process.memoryUsage().heapUsed / 2 ** 20);
}
