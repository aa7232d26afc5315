/**
 * Seven streams run and a long prompt arrives: the longest time between two tokens of any of them. One that
 * shows no text of its own (a blank that may belong to a call) comes with the next, and is counted.
 */
import { streamChat } from '../lib/client.mjs';
import { openBare, openNeuron, question, withSides } from '../lib/sides.mjs';
import { atMost, median, row } from '../lib/stats.mjs';
import { prose } from '../lib/texts.mjs';

const streams = 7;
const promptWords = 1750;
/** What the engine reads beside running streams: a quarter of a graph of 512. */
const chunkTokens = 128;

export async function gap({ model: file, threads, rounds, log }) {
  const options = { file, threads, context: 3072, slots: 8 };
  return await withSides([() => openBare(options), () => openNeuron(options)], async (bare, neuron) => {
    const results = [];
    for (let round = 0; round < rounds; round++) {
      const chunkMs = await bare.prefill({ depth: 2000 - chunkTokens, count: chunkTokens });
      results.push({ chunkMs, ...(await measure(neuron, round)) });
      log(JSON.stringify(results.at(-1)));
    }
    const of = (key) => median(results.map((each) => each[key])).toFixed(0);
    const note =
      `gap ${of('gapMs')} ms, step ${of('stepMs')} ms, chunk of ${chunkTokens} ${of('chunkMs')} ms, ` +
      `prompt ${of('promptTokens')} tokens, first token ${of('firstMs')} ms`;
    const values = results.map(({ gapMs, stepMs, chunkMs }) => gapMs / (3 * stepMs + chunkMs));
    return [row('longest gap / (3 steps + prefill chunk)', values, atMost(1), note)];
  });
}

async function measure({ url, model }, round) {
  const settled = { count: 0, done: () => {} };
  const isSettled = new Promise((resolve) => {
    settled.done = resolve;
  });
  const runs = Array.from({ length: streams }, (_, stream) => {
    const onText = (count) => {
      if (count === 20 && ++settled.count === streams) settled.done();
    };
    return streamChat(url, { model, messages: question(round, stream), maxTokens: 220, tells: true, onText });
  });
  await isSettled;
  const arrivedAt = performance.now();
  const messages = [{ role: 'user', content: prose(round + 7000, promptWords) }];
  const long = await streamChat(url, { model, messages, maxTokens: 2 });
  const readAt = long.times[0];
  const answers = await Promise.all(runs);
  const before = [];
  let gapMs = 0;
  for (const { times, tokensOf } of answers) {
    for (let at = 1; at < times.length; at++) {
      const length = (times[at] - times[at - 1]) / tokensOf[at];
      if (times[at] <= arrivedAt) before.push(length);
      else if (times[at - 1] < readAt) gapMs = Math.max(gapMs, length);
    }
  }
  return { gapMs, stepMs: median(before), promptTokens: long.promptTokens, firstMs: long.firstMs };
}
