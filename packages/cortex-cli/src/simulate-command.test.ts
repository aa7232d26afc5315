import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runCli } from './spawn-cli.test.kit.ts';

const cwd = mkdtempSync(join(tmpdir(), 'cortex-simulate-'));
after(() => rmSync(cwd, { recursive: true }));
const write = (name: string, text: string): void => writeFileSync(join(cwd, name), text);

test('a generated trace is written, and simulated from its files it gives the same numbers', async () => {
  const made = await runCli('cortex', ['simulate', '--generate', 'agents', '--seed', '5', '--out', '.'], {
    cwd,
  });
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stderr, /agents, --seed 5/);
  const files = ['simulate', 'agents.jsonl', '--fleet', 'agents.fleet.toml', '--json'];
  const fromFiles = await runCli('cortex', files, { cwd });
  const direct = await runCli('cortex', ['simulate', '--generate', 'agents', '--seed', '5', '--json'], {
    cwd,
  });
  assert.deepEqual(JSON.parse(fromFiles.stdout), JSON.parse(direct.stdout));
  const strategies = JSON.parse(direct.stdout).map((report: { strategy: string }) => report.strategy);
  assert.deepEqual(strategies, ['lru', 'priority', 'cost']);
});

test('a table shows the strategies that were asked for', async () => {
  const args = ['simulate', '--generate', 'alternation', '--seed', '1', '--strategy', 'lru', 'cost'];
  const { stdout } = await runCli('cortex', args, { cwd });
  const [head, ...rows] = stdout.trimEnd().split('\n');
  assert.match(head ?? '', /^strategy +requests +refused +ttft p50 +ttft p99 +waited/);
  assert.deepEqual(
    rows.map((row) => row.split(' ')[0]),
    ['lru', 'cost'],
  );
});

test('what is wrong with a trace or a fleet is said with its place, and what to do', async () => {
  write('bad.jsonl', '{"model":"m"}\n');
  write('fleet.toml', '[[nodes]]\nname = "n"\nslot = 1\n');
  write('empty.toml', '');
  const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
    [[], 2, /name a trace and its fleet/],
    [['bad.jsonl', '--fleet', 'fleet.toml'], 1, /fleet\.toml:3 nodes\[0\]\.slot: .*"slots"/],
    [['bad.jsonl', '--fleet', 'empty.toml'], 1, /has no \[\[nodes\]\]/],
    [['none.jsonl', '--fleet', 'fleet-ok.toml'], 1, /cannot read none\.jsonl/],
    [['bad.jsonl', '--fleet', 'fleet-ok.toml'], 1, /bad\.jsonl: line 1: prompt_tokens/],
    [['x.jsonl', '--generate', 'agents'], 2, /leave TRACE and --fleet out/],
  ];
  write('fleet-ok.toml', '[[nodes]]\nname = "n"\n');
  for (const [args, code, message] of cases) {
    const result = await runCli('cortex', ['simulate', ...args], { cwd });
    assert.match(result.stderr, message);
    assert.equal(result.code, code, result.stderr);
    assert.equal(result.stdout, '');
  }
});
