/**
 * What translation costs a request: an agent's Messages request of 25,000 tokens (100,000 characters, 25
 * tools, 60 turns) from bytes to the chat body for a neuron, and how far the client's first byte is behind
 * the neuron's, through a gateway with a mock neuron on localhost. Chat, whose bytes pass as they are, stands
 * beside it. All runs in one process, so that the second figure holds what client and mock cost as well.
 * Goals: below 5 ms, and below 2 ms. Usage: node bench/dialects.bench.mjs [--rounds 200]
 */
import { parseArgs } from 'node:util';
import { cortexConfigSchema } from '../packages/cortex-core/dist/config/cortex-config.js';
import { modelsConfigSchema } from '../packages/cortex-core/dist/config/models-config.js';
import { silentLog } from '../packages/cortex-core/dist/daemon/log.js';
import { anthropicMessages } from '../packages/cortex-gateway/dist/dialects/anthropic.js';
import { openAiChat } from '../packages/cortex-gateway/dist/dialects/openai.js';
import { startGateway } from '../packages/cortex-gateway/dist/gateway.js';
import { chatStream, startFakeNeuron } from '../packages/testkit/dist/fake-neuron.js';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '200' } } });
const rounds = Number(values.rounds);

function words(count, seed) {
  const known = 'the quick brown fox jumps over a lazy dog and returns to its den before nightfall'.split(
    ' ',
  );
  return Array.from({ length: count }, (_, at) => known[(at * 7 + seed) % known.length]).join(' ');
}

function messagesRequest() {
  const property = { type: 'string', description: words(12, 3) };
  const tools = Array.from({ length: 25 }, (_, at) => ({
    name: `tool_${at}`,
    description: words(80, at),
    input_schema: {
      $schema: 'http://json-schema.org/draft-07/schema#',
      type: 'object',
      properties: { path: property, query: property, limit: { type: 'integer', exclusiveMinimum: 0 } },
      required: ['path'],
      additionalProperties: false,
    },
  }));
  const turns = Array.from({ length: 30 }, (_, at) => [
    {
      role: 'assistant',
      content: [
        { type: 'thinking', thinking: words(40, at), signature: 'x'.repeat(200) },
        { type: 'text', text: words(30, at) },
        { type: 'tool_use', id: `toolu_${at}`, name: `tool_${at % 25}`, input: { path: words(3, at) } },
      ],
    },
    {
      role: 'user',
      content: [
        {
          type: 'tool_result',
          tool_use_id: `toolu_${at}`,
          content: [{ type: 'text', text: words(320, at) }],
        },
      ],
    },
  ]).flat();
  return {
    ...{ model: 'm', max_tokens: 32_000, stream: true, tools, thinking: { type: 'adaptive' } },
    system: [
      { type: 'text', text: 'x-anthropic-billing-header: cc_version=2.1; cch=1f2e3;' },
      { type: 'text', text: words(2000, 1), cache_control: { type: 'ephemeral' } },
    ],
    messages: [{ role: 'user', content: words(40, 5) }, ...turns],
  };
}

const request = messagesRequest();
const messagesBody = Buffer.from(JSON.stringify(request));
const upstream = (dialect, body) => dialect.parse(body, { prefixHygiene: true }).toUpstream({ wireId: 'n' });
const chatBody = upstream(anthropicMessages, messagesBody);

function percentiles(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { first: times[0], median: at(0.5), p95: at(0.95), most: sorted.at(-1) };
}

function show(line, wanted, times) {
  const { first, median, p95, most } = percentiles(times);
  const cells = [first, median, p95, most].map((ms) => ms.toFixed(2).padStart(8));
  console.log(`${line.padEnd(44)}${cells.join('')}   ${wanted}`);
}

console.log(`${messagesBody.length} bytes of request; ms           first  median     p95    most   wanted`);

for (const [line, wanted, dialect, body] of [
  ['Messages request -> chat body', '< 5', anthropicMessages, messagesBody],
  ['chat request, passed on', '', openAiChat, chatBody],
]) {
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    upstream(dialect, body);
    times.push(performance.now() - started);
  }
  show(line, wanted, times);
}

const neuron = await startFakeNeuron({ models: [{ id: 'm', status: 'loaded' }] });
const gateway = await startGateway(
  cortexConfigSchema.parse({
    gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
    neurons: [{ name: 'n', endpoint: neuron.url }],
  }),
  modelsConfigSchema.parse({}),
  { log: silentLog },
);
let wroteMs = 0;
const answer = chatStream('m', ['Hello', ' world']);
const head = answer.indexOf('\n\n', answer.indexOf('Hello')) + 2;
neuron.onChat = ({ response }) => {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  wroteMs = performance.now();
  response.write(answer.slice(0, head));
  response.end(answer.slice(head));
};

async function behindMs(url, body) {
  const response = await fetch(url, { method: 'POST', body });
  const reader = response.body.getReader();
  let seenMs = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    if (seenMs === 0) seenMs = performance.now();
  }
  return seenMs - wroteMs;
}

try {
  const small = { model: 'm', max_tokens: 9, stream: true, messages: [{ role: 'user', content: 'hi' }] };
  const lines = [
    ['first byte behind the neuron: Messages', '< 2', `${gateway.url}/v1/messages`],
    ['first byte behind the neuron: chat', '', `${gateway.url}/v1/chat/completions`],
    ['first byte behind the neuron: no gateway', '', `${neuron.url}/v1/chat/completions`],
  ];
  const times = lines.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [at, [, , url]] of lines.entries()) times[at].push(await behindMs(url, JSON.stringify(small)));
  }
  for (const [at, [line, wanted]] of lines.entries()) show(line, wanted, times[at]);
} finally {
  await gateway.close();
  await neuron.close();
}
