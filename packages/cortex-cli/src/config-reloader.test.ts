import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ReloadReport } from 'cortex-core/config/diff-config';
import { ConfigError } from 'cortex-core/config/load';
import { createLog } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';
import { ConfigReloader } from './config-reloader.ts';

const none: ReloadReport = { changed: [], needsRestart: [], notes: [] };

function setUp(apply: () => ReloadReport | Promise<ReloadReport>) {
  const lines: Record<string, unknown>[] = [];
  const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line)) });
  return { reloader: new ConfigReloader({ log, apply }), lines };
}

test('the log lists what changed, and what needs a restart', async () => {
  const report = { changed: ['a: 1 -> 2'], needsRestart: ['b: added'], notes: [] };
  const { reloader, lines } = setUp(() => report);
  assert.equal(await reloader.reload('signal'), report);
  const { message, trigger, changed, needs_restart } = lines[0]!;
  assert.deepEqual(
    [message, trigger, changed, needs_restart],
    ['configuration reloaded', 'signal', report.changed, report.needsRestart],
  );
});

test('every fault is in the log and in the error, and the next reload works', async () => {
  let attempt = 0;
  const fault = { source: 'x.toml', column: null, suggestion: null, message: 'is wrong' };
  const { reloader, lines } = setUp(() => {
    if (attempt++ > 0) return none;
    throw new ConfigError([
      { ...fault, line: 1, key: 'a' },
      { ...fault, line: 2, key: 'b' },
    ]);
  });
  await assert.rejects(reloader.reload('request'), ConfigError);
  assert.deepEqual(lines[0]?.faults, ['x.toml:1 a: is wrong', 'x.toml:2 b: is wrong']);
  assert.equal(await reloader.reload('request'), none);
});

test('a fault of the command line is a configuration fault too, not a crash', async () => {
  const { reloader } = setUp(() => {
    throw new CliError('--model x is not there');
  });
  await assert.rejects(reloader.reload('request'), /command line: --model x is not there/);
  reloader.trigger('file');
});

test('reloads run one after another', async () => {
  let running = 0;
  const { reloader } = setUp(async () => {
    assert.equal(++running, 1);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    return none;
  });
  await Promise.all([reloader.reload('file'), reloader.reload('signal'), reloader.reload('request')]);
});
