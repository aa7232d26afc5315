/**
 * `npm run bench:simulate`: every strategy on every generated trace, as the Markdown table of
 * docs/scheduling.md. The same seeds make the same numbers on every machine; only the last column is time.
 *
 *   npm run bench:simulate -- --seeds 5 agents orchestrator     more seeds, some traces
 */
import { ensureBuilt } from '../packages/cortex-cli/bin/build.js';

await ensureBuilt({ always: true });
const { generateTrace, traceNames } = await import('../packages/cortex-gateway/dist/simulate/traces.js');
const { simulate } = await import('../packages/cortex-gateway/dist/simulate/simulation.js');
const { toReport } = await import('../packages/cortex-gateway/dist/simulate/report.js');

const strategies = ['lru', 'priority', 'cost'];
const rules = { maxWaitMs: 60_000, residencyFactor: 1, residencyMaxMs: 30_000 };
const unloadMs = 500;

const args = process.argv.slice(2);
const at = args.indexOf('--seeds');
const seedCount = at < 0 ? 3 : Number(args.splice(at, 2)[1]);
if (!Number.isInteger(seedCount) || seedCount < 1) throw new Error('--seeds takes a whole number above 0');
const names = args.length === 0 ? traceNames : args;
const unknown = names.find((name) => !traceNames.includes(name));
if (unknown !== undefined) throw new Error(`no trace "${unknown}"; there are ${traceNames.join(', ')}`);

const columns = ['trace', 'seed', 'strategy', 'requests', 'TTFT p50', 'p99', 'waited', 'longest'];
console.log(`| ${[...columns, 'swaps', 'evictions', 'loads', 'ran in'].join(' | ')} |`);
console.log('|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|');
const waited = new Map();
for (const name of names) {
  const seeds = name === 'diurnal' ? 1 : seedCount;
  for (let seed = 1; seed <= seeds; seed++) {
    const scenario = generateTrace(name, seed);
    for (const strategy of strategies) {
      const startedMs = performance.now();
      const result = simulate({
        fleet: { ...scenario, unloadMs },
        trace: scenario.requests,
        strategy,
        rules,
      });
      const ms = performance.now() - startedMs;
      const report = toReport(strategy, result);
      const key = `${name} ${strategy}`;
      waited.set(key, (waited.get(key) ?? 0) + report.waited);
      const swaps = `${report.swaps_idle}+${report.swaps_due}`;
      const cells = [name, seed, strategy, report.requests, secs(report.ttft_p50), secs(report.ttft_p99)];
      cells.push(secs(report.waited), secs(report.waited_longest), swaps, report.evictions, report.loads);
      console.log(`| ${[...cells, `${(ms / 1000).toFixed(1)} s`].join(' | ')} |`);
    }
  }
}

console.log('\n| waited, all seeds | lru | priority | cost | cost against lru |');
console.log('|---|--:|--:|--:|--:|');
for (const name of names) {
  const [lru, priority, cost] = strategies.map((strategy) => waited.get(`${name} ${strategy}`));
  const change = `${(((cost - lru) / lru) * 100).toFixed(1)} %`;
  console.log(`| ${name} | ${secs(lru)} | ${secs(priority)} | ${secs(cost)} | ${change} |`);
}

function secs(value) {
  return `${value.toFixed(value < 100 ? 1 : 0)} s`;
}
