/** Tokens per second while all streams run: HTTP against the bare loop, transports, llama-server. */
import {
  barePrompt,
  interleave,
  openBare,
  openLlamaServer,
  openNeuron,
  rateOf,
  ratios,
  withSides,
} from '../lib/sides.mjs';
import { atLeast, row, sides } from '../lib/stats.mjs';

const tokens = 128;

export async function throughput({ model: file, threads, rounds, llamaServer, log }) {
  const options = { file, threads, context: 512, slots: 8 };
  const openers = [
    () => openBare(options),
    () => openNeuron(options),
    () => openNeuron({ ...options, transport: 'process' }),
    ...(llamaServer === null ? [] : [() => openLlamaServer(llamaServer, options)]),
  ];
  return await withSides(openers, async (bare, thread, owner, server) => {
    const measured = new Map();
    for (const streams of [1, 4, 8]) {
      const ask = (side) => async (round) => {
        const rate = await rateOf(side, { streams, tokens, round });
        log(`${streams} streams, ${side.name}: ${rate.toFixed(1)} tokens/s`);
        return rate;
      };
      const bareRate = async () => {
        const rate = await bare.decode({ prompt: barePrompt, streams, tokens });
        log(`${streams} streams, bare: ${rate.toFixed(1)} tokens/s`);
        return rate;
      };
      const measures = [bareRate, ask(thread), ask(owner), ...(server ? [ask(server)] : [])];
      for (const measure of measures) await measure(rounds);
      measured.set(streams, await interleave(rounds, measures));
    }
    return toRows(measured, llamaServer);
  });
}

function toRows(measured, llamaServer) {
  const rows = [];
  const compare = (name, streams, left, right, target) => {
    const sets = measured.get(streams);
    const note = `${sides(sets[left], sets[right], 1)} tokens/s`;
    rows.push(row(name, ratios(sets[left], sets[right]), atLeast(target), note));
  };
  const plural = (streams) => (streams === 1 ? '1 stream' : `${streams} streams`);
  for (const [streams, target] of [
    [1, 0.97],
    [8, 0.95],
  ]) {
    compare(`HTTP / bare loop, ${plural(streams)}`, streams, 1, 0, target);
  }
  for (const streams of [1, 8])
    compare(`process / thread transport, ${plural(streams)}`, streams, 2, 1, 0.97);
  for (const streams of [1, 4, 8]) {
    const name = `neuron / llama-server tokens/s, ${plural(streams)}`;
    if (llamaServer === null) rows.push(row(name, [], null, 'set LLAMA_SERVER'));
    else compare(name, streams, 1, 3, 1.15);
  }
  return rows;
}
