/**
 * Time to the first text of an answer, against llama-server: prompts never seen, a new question behind one,
 * and the same again.
 */
import { streamChat } from '../lib/client.mjs';
import { interleave, openLlamaServer, openNeuron, ratios, withSides } from '../lib/sides.mjs';
import { atMost, row, sides } from '../lib/stats.mjs';
import { prose } from '../lib/texts.mjs';

const names = [
  'first token, cold, neuron / llama-server',
  'first token, cached prefix and a new question, neuron / llama-server',
  'first token, the same prompt again, neuron / llama-server',
];
const kinds = ['cold', 'prefix', 'again'];

export async function firstToken({ model: file, threads, rounds, llamaServer }) {
  if (llamaServer === null) return names.map((name) => row(name, [], null, 'set LLAMA_SERVER'));
  const options = { file, threads, context: 2048 };
  const openers = [
    () => openNeuron({ ...options, slots: 4 }),
    () => openLlamaServer(llamaServer, { ...options, context: 4 * 2048 }),
  ];
  return await withSides(openers, async (neuron, server) => {
    const ask = (side) => async (round) => {
      const text = prose(round + 1, 450);
      const send = async (content) => {
        const messages = [{ role: 'user', content }];
        return (await streamChat(side.url, { model: side.model, messages, maxTokens: 4 })).firstMs;
      };
      const question = `${text} Which of these words did I say more than once, and which one did I say last?`;
      return { cold: await send(text), prefix: await send(question), again: await send(question) };
    };
    for (const side of [neuron, server]) await ask(side)(1000);
    const [ours, theirs] = await interleave(rounds * 2, [ask(neuron), ask(server)]);
    return kinds.map((kind, at) => {
      const left = ours.map((each) => each[kind]);
      const right = theirs.map((each) => each[kind]);
      const target = atMost(kind === 'cold' ? 0.8 : 1);
      return row(names[at], ratios(left, right), target, `${sides(left, right)} ms`);
    });
  });
}
