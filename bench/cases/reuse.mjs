/** Prompt tokens that are not computed twice. */
import { postJson, streamChat } from '../lib/client.mjs';
import { openNeuron, withSides } from '../lib/sides.mjs';
import { atLeast, atMost, row } from '../lib/stats.mjs';
import { prose } from '../lib/texts.mjs';

const sessions = 16;

export async function reuse({ model: file, threads, rounds }) {
  return await withSides([() => openNeuron({ file, threads, context: 2048, slots: 8 })], async (neuron) => {
    const shares = [];
    const factors = [];
    for (let round = 0; round < rounds; round++) {
      shares.push(await secondTurn(neuron, round));
      factors.push(await sharedSystem(neuron, round));
    }
    return [
      row('second turn: shared tokens reused', shares, atLeast(0.99), 'cached_tokens / common prefix'),
      row(
        '16 sessions, one system prompt: tokens decoded / least possible',
        factors,
        atMost(1.05),
        'sent at once, 8 slots',
      ),
    ];
  });
}

const toTokens = async ({ url, model }, messages, add_generation_prompt) =>
  (await postJson(url, '/tokenize', { model, messages, add_generation_prompt })).tokens;

async function secondTurn(neuron, round) {
  const { url, model } = neuron;
  const first = [{ role: 'user', content: `Continue: ${prose(round + 3000, 300)}` }];
  const answer = await streamChat(url, { model, messages: first, maxTokens: 48 });
  const said = [...first, { role: 'assistant', content: answer.text }];
  const second = [...said, { role: 'user', content: 'And now in one sentence.' }];
  const shared = commonPrefix(await toTokens(neuron, said, false), await toTokens(neuron, second, true));
  const next = await streamChat(url, { model, messages: second, maxTokens: 4 });
  // The last token of the first answer was sampled and never decoded; what follows it is template.
  return next.cachedTokens / Math.min(shared, answer.promptTokens + answer.tokens - 1);
}

async function sharedSystem(neuron, round) {
  const { url, model } = neuron;
  const system = { role: 'system', content: prose(round + 4000, 350) };
  const prompts = Array.from({ length: sessions }, (_, at) => [
    system,
    { role: 'user', content: `${prose(round * sessions + at + 5000, 20)}?` },
  ]);
  const tokens = await Promise.all(prompts.map((messages) => toTokens(neuron, messages, true)));
  const shared = commonPrefix(tokens[0], tokens[1]);
  const least = shared + tokens.reduce((sum, each) => sum + each.length - shared, 0);
  const all = prompts.map((messages) => streamChat(url, { model, messages, maxTokens: 4 }));
  const answers = await Promise.all(all);
  return answers.reduce((sum, each) => sum + each.promptTokens - each.cachedTokens, 0) / least;
}

function commonPrefix(a, b) {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
