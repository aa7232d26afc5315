/**
 * How long a chat template takes to render an agent's transcript: a system prompt, 20 tools, 200 messages
 * with 50 calls, about 110,000 characters (25,000 tokens). Templates: the fixtures of packages/neuron, or
 * the folder given. Prints milliseconds of the first rendering, and best and median of twenty; the goal is
 * below 10.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { toPlainMessages, toTemplateTools } from '../packages/neuron/dist/chat/messages.js';
import { ChatTemplate } from '../packages/neuron/dist/chat/template.js';

const fixtures = fileURLToPath(new URL('../packages/neuron/src/chat/fixtures/templates', import.meta.url));
const folder = resolve(process.argv[2] ?? fixtures);
const words = 'the quick brown fox jumps over a lazy dog and returns to its den before nightfall'.split(' ');
let state = 1;

function text(count) {
  return Array.from({ length: count }, () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return words[state % words.length];
  }).join(' ');
}

function transcript() {
  const messages = [{ role: 'system', content: text(1500) }];
  for (let turn = 0; turn < 50; turn++) {
    const id = `call_${String(turn).padStart(4, '0')}`;
    const call = { name: `tool_${turn % 20}`, arguments: JSON.stringify({ path: text(4), query: text(10) }) };
    messages.push(
      { role: 'user', content: text(60) },
      { role: 'assistant', content: text(30), tool_calls: [{ id, type: 'function', function: call }] },
      { role: 'tool', tool_call_id: id, content: text(230) },
      { role: 'assistant', content: text(60) },
    );
  }
  return [...messages, { role: 'user', content: 'go on' }];
}

const properties = Object.fromEntries(
  ['path', 'query', 'limit', 'mode'].map((key) => [key, { type: 'string', description: text(12) }]),
);
const tools = Array.from({ length: 20 }, (_, at) => ({
  type: 'function',
  function: {
    name: `tool_${at}`,
    description: text(40),
    parameters: { type: 'object', properties, required: ['path'] },
  },
}));
const messages = transcript();

console.log('template                                  first    best  median  characters');
for (const file of readdirSync(folder).filter((name) => name.endsWith('.jinja'))) {
  const source = readFileSync(resolve(folder, file), 'utf8');
  const facts = {
    chatTemplate: source,
    namedTemplates: {},
    bosToken: '<s>',
    eosToken: '</s>',
    addBos: false,
  };
  const context = { modelId: file, hasChatMl: async () => false, now: () => new Date() };
  const template = new ChatTemplate(facts, context);
  const times = [];
  let length = 0;
  try {
    await template.chosen(true);
    for (let round = 0; round < 20; round++) {
      const started = performance.now();
      const plain = toPlainMessages(messages, { modelId: file, capabilities: [] });
      const prompt = await template.render({
        messages: plain,
        tools: toTemplateTools(tools),
        end: 'generation_prompt',
      });
      times.push(performance.now() - started);
      length = prompt.length;
    }
  } catch (error) {
    console.log(`${file.padEnd(38)} ${error.message.slice(0, 100)}`);
    continue;
  }
  const [first] = times;
  const sorted = times.toSorted((a, b) => a - b);
  const shown = [first, sorted[0], sorted[10]].map((ms) => ms.toFixed(2).padStart(8)).join('');
  console.log(`${file.padEnd(38)}${shown}  ${length}`);
}
