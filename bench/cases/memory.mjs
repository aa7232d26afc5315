/** Resident memory of an owner process that is neither the weights nor the KV cache. */
import { readdirSync, readFileSync } from 'node:fs';
import { openBare, openNeuron, rateOf, withSides } from '../lib/sides.mjs';
import { atMost, row } from '../lib/stats.mjs';

const mib = 1024 ** 2;

export async function memory({ model: file, threads }) {
  const options = { file, threads, context: 1024, slots: 4 };
  const { kvBytesPerToken } = await withSides([() => openBare(options)], async (bare) => bare);
  return await withSides([() => openNeuron({ ...options, transport: 'process' })], async (neuron) => {
    await rateOf(neuron, { streams: 4, tokens: 64, round: 0 });
    const kv = (kvBytesPerToken * options.context * (options.slots + 1)) / mib;
    const owners = childrenOf(neuron.pid).map((pid) => readOwner(pid));
    const { rss, weights } = owners.toSorted((a, b) => b.rss - a.rss)[0];
    const note =
      `RSS ${rss.toFixed(0)}, weights ${weights.toFixed(0)}, KV ${kv.toFixed(0)} MiB; ` +
      `daemon beside it ${readOwner(neuron.pid).rss.toFixed(0)}`;
    return [row('owner process beyond weights and KV, MiB', [rss - weights - kv], atMost(150), note)];
  });
}

function childrenOf(pid) {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean),
  );
}

/** MiB; weights are what is resident of the mapped model file. */
function readOwner(pid) {
  let rss = 0;
  let weights = 0;
  let isModel = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isModel = line.endsWith('.gguf');
    const size = /^Rss: +(\d+) kB/.exec(line)?.[1];
    if (size === undefined) continue;
    rss += Number(size) / 1024;
    if (isModel) weights += Number(size) / 1024;
  }
  return { rss, weights };
}
