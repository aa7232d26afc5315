/** A model so small that only overhead is left: one stream through HTTP and the process transport. */
import { barePrompt, interleave, openBare, openNeuron, rateOf, ratios, withSides } from '../lib/sides.mjs';
import { atLeast, row, sides } from '../lib/stats.mjs';

const tokens = 512;

export async function tiny({ tiny: file, rounds }) {
  const options = { file, threads: 1, context: 1024, slots: 2 };
  const openers = [
    () => openBare(options),
    () => openNeuron({ ...options, transport: 'process' }),
    () => openNeuron(options),
  ];
  return await withSides(openers, async (bare, owner, thread) => {
    const ask = (side) => (round) => rateOf(side, { streams: 1, tokens, round });
    const measures = [() => bare.decode({ prompt: barePrompt, streams: 1, tokens }), ask(owner), ask(thread)];
    for (let warm = 0; warm < 3; warm++) for (const measure of measures) await measure(100 + warm);
    const [bareRates, ownerRates, threadRates] = await interleave(rounds * 2, measures);
    const note = (rates) => `${sides(rates, bareRates)} tokens/s`;
    return [
      row(
        'cortex-tiny: HTTP + process / bare loop',
        ratios(ownerRates, bareRates),
        atLeast(0.8),
        note(ownerRates),
      ),
      row(
        'cortex-tiny: HTTP + thread / bare loop',
        ratios(threadRates, bareRates),
        atLeast(0.8),
        note(threadRates),
      ),
    ];
  });
}
