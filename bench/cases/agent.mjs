/** An agent's conversation, turn after turn, each server going on from its own answers. */
import { streamChat } from '../lib/client.mjs';
import { interleave, openLlamaServer, openNeuron, ratios, withSides } from '../lib/sides.mjs';
import { atMost, median, row, sides } from '../lib/stats.mjs';
import { agentSystem, agentTurns } from '../lib/texts.mjs';

const turns = 20;
const answerTokens = 64;
const name = `agent of ${turns} turns, wall, neuron / llama-server`;

export async function agent({ model: file, threads, rounds, llamaServer, log }) {
  if (llamaServer === null) return [row(name, [], null, 'set LLAMA_SERVER')];
  const options = { file, threads, context: 8192 };
  const openers = [() => openNeuron({ ...options, slots: 2 }), () => openLlamaServer(llamaServer, options)];
  return await withSides(openers, async (neuron, server) => {
    const replayOn = (side) => async (round) => {
      const result = await replay(side, round);
      log(`agent, ${side.name}: ${JSON.stringify(result)}`);
      return result;
    };
    const [ours, theirs] = await interleave(Math.max(1, Math.floor(rounds / 2)), [
      replayOn(neuron),
      replayOn(server),
    ]);
    const of = (all, key) => all.map((each) => each[key]);
    const walls = [of(ours, 'wallMs'), of(theirs, 'wallMs')];
    const decoded = `${median(of(ours, 'decoded'))} / ${median(of(theirs, 'decoded'))}`;
    const note = `${sides(...walls)} ms, prompt tokens decoded ${decoded}`;
    return [row(name, ratios(...walls), atMost(0.7), note)];
  });
}

async function replay({ url, model }, round) {
  const messages = [{ role: 'system', content: `Session ${round}. ${agentSystem}` }];
  let decoded = 0;
  let prompts = 0;
  const startedAt = performance.now();
  for (const turn of agentTurns(turns)) {
    messages.push(turn);
    const answer = await streamChat(url, { model, messages, maxTokens: answerTokens });
    messages.push({ role: 'assistant', content: answer.text });
    decoded += answer.promptTokens - answer.cachedTokens;
    prompts += answer.promptTokens;
  }
  return { wallMs: performance.now() - startedAt, decoded, prompts };
}
