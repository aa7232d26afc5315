/**
 * What a gateway adds to a request, and what it holds: client, gateway and mock neuron are three processes on
 * localhost. Seven rounds in turns, each median a median of the rounds' medians; then a thousand open streams,
 * and the same again after each of several bursts that come and go.
 *
 *   npm run bench:fleet   or   node bench/gateway.bench.mjs [--requests 300] [--streams 1000] [--bursts 5]
 *
 * Goals: at most 1.0 ms a request (0.5 is the stretch), a translated first byte less than 2 ms behind, below
 * 150 MB with 1,000 open streams, and flat.
 */
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { forkAsking } from './lib/child.mjs';
import { median } from './lib/stats.mjs';

const number = (fallback) => ({ type: 'string', default: String(fallback) });
const { values } = parseArgs({
  options: { requests: number(300), streams: number(1000), bursts: number(5) },
});
const [requests, streams, bursts] = [values.requests, values.streams, values.bursts].map(Number);
const rounds = 7;
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
const hi = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };

const neuron = await forkAsking('./mock-neuron-child.mjs', {});
try {
  await withGateway(overhead);
  await withGateway(memory);
} finally {
  await neuron.close();
}
process.exit(0);

async function withGateway(run) {
  const gateway = await forkAsking('./gateway-child.mjs', { neuron: neuron.value.url }, ['--expose-gc']);
  try {
    await run(gateway);
  } finally {
    await gateway.close();
  }
}

/** Milliseconds to the first byte of the body and to its end. */
function ask(url, body) {
  return new Promise((resolve, reject) => {
    const startedMs = performance.now();
    let firstMs = 0;
    const sent = request(url, { method: 'POST', agent }, (response) => {
      response.on('data', () => {
        firstMs ||= performance.now() - startedMs;
      });
      response.once('end', () => resolve({ firstMs, totalMs: performance.now() - startedMs }));
    });
    sent.once('error', reject);
    sent.end(JSON.stringify(body));
  });
}

async function overhead(gateway) {
  const chat = '/v1/chat/completions';
  const stream = { ...hi, stream: true };
  const cases = [
    ['whole answer', 'totalMs', hi, chat, '<= 1.0'],
    ['stream, first byte', 'firstMs', stream, chat, ''],
    ['Messages, first byte', 'firstMs', { ...stream, max_tokens: 9 }, '/v1/messages', '< 2'],
    ['Responses, first byte', 'firstMs', { model: 'm', input: 'hi', stream: true }, '/v1/responses', '< 2'],
  ];
  console.log(`${'ms, one request after the other'.padEnd(34)}  direct  gateway    added  wanted`);
  for (const [name, key, body, path, wanted] of cases) {
    const sides = [
      [`${neuron.value.url}${chat}`, path === chat ? body : stream],
      [`${gateway.value.url}${path}`, body],
    ];
    const medians = sides.map(() => []);
    for (let round = 0; round <= rounds; round++) {
      for (let turn = 0; turn < sides.length; turn++) {
        const at = (turn + round) % sides.length;
        const times = [];
        for (let i = 0; i < requests; i++) times.push((await ask(...sides[at]))[key]);
        // the first round warms up
        if (round > 0) medians[at].push(median(times));
      }
    }
    const [direct, through] = medians.map((each) => median(each));
    const cells = [direct, through, through - direct].map((ms) => ms.toFixed(2).padStart(8));
    console.log(`${name.padEnd(34)}${cells.join(' ')}  ${wanted}`);
  }
}

async function memory(gateway) {
  const tell = async (when) => {
    const { rssMb, heapMb } = await gateway.ask({ command: 'memory' });
    console.log(`${when.padEnd(34)}${rssMb.toFixed(0).padStart(8)} ${heapMb.toFixed(1).padStart(8)}`);
  };
  console.log(`\n${'MiB of the gateway'.padEnd(34)}${'resident'.padStart(8)} ${'heap'.padStart(8)}`);
  await tell('before');
  for (let burst = 1; burst <= bursts; burst++) {
    const open = await Promise.all(Array.from({ length: streams }, (_, i) => hold(gateway, i)));
    await sleep(3000);
    await tell(`${streams} open streams, burst ${burst}`);
    for (const leave of open) leave();
    await sleep(1000);
    await tell('they left');
  }
}

/** Opens a stream that goes on; resolves at its first byte, with the way out. Every second is of Messages. */
function hold(gateway, i) {
  const body = { ...hi, model: 'hold', stream: true, max_tokens: 9, user: `u${i}` };
  const path = i % 2 === 0 ? '/v1/chat/completions' : '/v1/messages';
  return new Promise((resolve, reject) => {
    const sent = request(`${gateway.value.url}${path}`, { method: 'POST' }, (response) => {
      response.resume();
      response.once('data', () => resolve(() => sent.destroy()));
      response.once('error', () => {});
    });
    sent.once('error', reject);
    sent.end(JSON.stringify(body));
  });
}
