/** Time to the first text of an answer, against llama-server: prompts never seen, and the same again. */
import { streamChat } from '../lib/client.mjs';
import { interleave, openLlamaServer, openNeuron, ratios, withSides } from '../lib/sides.mjs';
import { atMost, row, sides } from '../lib/stats.mjs';
import { prose } from '../lib/texts.mjs';

const names = [
  'first token, cold, neuron / llama-server',
  'first token, cached prefix, neuron / llama-server',
];

export async function firstToken({ model: file, threads, rounds, llamaServer }) {
  if (llamaServer === null) return names.map((name) => row(name, [], null, 'set LLAMA_SERVER'));
  const options = { file, threads, context: 2048 };
  const openers = [
    () => openNeuron({ ...options, slots: 4 }),
    () => openLlamaServer(llamaServer, { ...options, context: 4 * 2048 }),
  ];
  return await withSides(openers, async (neuron, server) => {
    const ask = (side) => async (round) => {
      const messages = [{ role: 'user', content: prose(round + 1, 450) }];
      const send = () => streamChat(side.url, { model: side.model, messages, maxTokens: 4 });
      const [cold, cached] = [await send(), await send()];
      return { cold: cold.firstMs, cached: cached.firstMs };
    };
    for (const side of [neuron, server]) await ask(side)(1000);
    const [ours, theirs] = await interleave(rounds * 2, [ask(neuron), ask(server)]);
    return ['cold', 'cached'].map((kind, at) => {
      const left = ours.map((each) => each[kind]);
      const right = theirs.map((each) => each[kind]);
      const target = atMost(kind === 'cold' ? 0.8 : 1);
      return row(names[at], ratios(left, right), target, `${sides(left, right)} ms`);
    });
  });
}
