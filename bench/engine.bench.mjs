/**
 * How fast a neuron is, as ratios: of two things measured in turns, in one run, on one machine.
 *
 *   npm run bench:engine [-- --model FILE --only NAME[,NAME] --rounds N --threads N --json --verbose]
 *
 * Needs a build (`npm run build`). docs/bench.md says what each line means. Without a model file only what
 * cortex-tiny can show is measured; without LLAMA_SERVER (path of llama-server) the lines against it say so.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { defaultThreads } from '../packages/neuron/dist/engine/default-threads.js';
import { agent } from './cases/agent.mjs';
import { firstToken } from './cases/first-token.mjs';
import { gap } from './cases/gap.mjs';
import { memory } from './cases/memory.mjs';
import { reuse } from './cases/reuse.mjs';
import { throughput } from './cases/throughput.mjs';
import { tiny } from './cases/tiny.mjs';
import { readConditions, readLoad } from './lib/conditions.mjs';
import { meets } from './lib/stats.mjs';

const cases = { throughput, tiny, 'first-token': firstToken, gap, reuse, agent, memory };
const tinyFile = fileURLToPath(new URL('../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const options = readOptions();
const conditions = readConditions(options);
if (!options.json) console.log(describe(conditions));
const results = [];
for (const name of options.only) results.push(...(await runCase(name)));
if (options.json) console.log(JSON.stringify({ conditions, results }, null, 2));
process.exit(results.some(({ failed }) => failed) ? 1 : 0);

function readOptions() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string' },
      only: { type: 'string', default: Object.keys(cases).join(',') },
      rounds: { type: 'string', default: '5' },
      threads: { type: 'string' },
      json: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
    },
  });
  const only = values.only.split(',');
  const unknown = only.find((name) => !Object.hasOwn(cases, name));
  if (unknown !== undefined) fail(`--only ${unknown}: there is ${Object.keys(cases).join(', ')}`);
  const rounds = Number(values.rounds);
  const threads = values.threads === undefined ? defaultThreads(1e9) : Number(values.threads);
  if (![rounds, threads].every((each) => Number.isInteger(each) && each > 0)) {
    fail('--rounds and --threads are whole numbers from 1');
  }
  const { json, verbose } = values;
  const log = (line) => verbose && console.error(line);
  return {
    model: findModel(values.model),
    tiny: tinyFile,
    only,
    rounds,
    threads,
    json,
    log,
    llamaServer: findServer(),
  };
}

function findModel(given) {
  const folder = process.env.CORTEX_TEST_MODELS;
  const file = given ?? (folder && join(folder, 'SmolLM2-135M-Instruct.Q4_1.gguf'));
  if (given !== undefined && !existsSync(given)) fail(`--model ${given}: there is no such file`);
  return file && existsSync(file) ? file : null;
}

function findServer() {
  const path = process.env.LLAMA_SERVER || null;
  if (path !== null && !existsSync(path)) fail(`LLAMA_SERVER=${path}: there is no such file`);
  return path;
}

function fail(message) {
  console.error(message);
  process.exit(2);
}

/** A case that fails is a line of the table; the others still run. */
async function runCase(name) {
  if (options.model === null && name !== 'tiny') {
    return show([{ name, skipped: 'no model: --model FILE or CORTEX_TEST_MODELS' }]);
  }
  const loadBefore = readLoad();
  try {
    const rows = await cases[name](options);
    return show(rows.map((each) => ({ case: name, ...each, loadBefore })));
  } catch (error) {
    return show([{ case: name, name, failed: true, skipped: `FAILED: ${error.stack}` }]);
  }
}

function show(rows) {
  if (!options.json) for (const each of rows) console.log(format(each));
  return rows;
}

function format(result) {
  if (result.skipped !== undefined) return `${result.name.padEnd(66)} ${result.skipped}`;
  const digits = result.max >= 10 ? 0 : 3;
  const [value, min, max] = [result.median, result.min, result.max].map((each) => each.toFixed(digits));
  const target = `${result.target.kind} ${result.target.value}`;
  const verdict = meets(result) ? 'ok  ' : 'MISS';
  const spread = `${min}..${max}`;
  const figures = `${value.padStart(6)}  ${spread.padEnd(14)} ${target.padEnd(8)} ${verdict}`;
  return `${result.name.padEnd(66)} ${figures} ${result.note} [load ${result.loadBefore}]`;
}

function describe(all) {
  const lines = Object.entries(all).map(([key, value]) => `${key.padEnd(12)} ${value}`);
  return [...lines, '', `${'median of rounds'.padEnd(66)}  value  min..max      target`].join('\n');
}
