/**
 * `npm test`: builds, lists every compiled test, and runs them in one `node --test`.
 *
 * Arguments that start with a dash go to the runner (`npm test -- --test-name-pattern=route`); any other one
 * is part of a source path (`npm test -- packages/neuron`). The list is explicit because on some versions of
 * Node `node --test <folder>` passes without running anything; an empty list is a failure.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureBuilt } from '../packages/cortex-cli/bin/build.js';

const root = fileURLToPath(new URL('..', import.meta.url));
/** Ends a file that hangs, and nothing else: a busy machine takes fifteen times as long (testkit/hang.ts). */
const fileTimeoutMsMax = 900_000;
const concurrency = 2;

process.chdir(root);
await ensureBuilt({ always: true });
const args = process.argv.slice(2);
const options = args.filter((arg) => arg.startsWith('-'));
const paths = args.filter((arg) => !arg.startsWith('-'));
const tests = [...listPackageTests(), ...listScriptTests()]
  .filter(({ source }) => paths.length === 0 || paths.some((path) => source.includes(path)))
  .map(({ file }) => file);
if (tests.length === 0) {
  console.error(`no tests${paths.length > 0 ? ` match ${paths.join(', ')}` : ''}`);
  process.exit(1);
}
process.exit(runTests(tests, options));

function runTests(files, extra) {
  const runner = ['--test', '--test-reporter=spec', `--test-concurrency=${concurrency}`];
  const limits = [`--test-timeout=${fileTimeoutMsMax}`, '--enable-source-maps'];
  // NODE_TEST_CONTEXT would make a runner inside a test report to that one.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const result = spawnSync(process.execPath, [...runner, ...limits, ...extra, ...files], {
    stdio: 'inherit',
    env,
  });
  if (result.error) throw result.error;
  return result.status ?? 1;
}

/** Compiled tests whose source is still there; what a deleted or renamed test left behind is removed. */
function listPackageTests() {
  return readdirSync('packages').flatMap((name) => {
    const dist = join('packages', name, 'dist');
    if (!existsSync(dist)) return [];
    return readdirSync(dist, { recursive: true })
      .filter((file) => file.endsWith('.test.js'))
      .sort()
      .flatMap((file) => {
        const stem = file.slice(0, -'.js'.length);
        const source = join('packages', name, 'src', `${stem}.ts`);
        if (existsSync(source)) return [{ source, file: join(dist, file) }];
        for (const ending of ['.js', '.js.map', '.d.ts'])
          rmSync(join(dist, `${stem}${ending}`), { force: true });
        return [];
      });
  });
}

function listScriptTests() {
  return readdirSync('scripts')
    .filter((file) => file.endsWith('.test.mjs'))
    .sort()
    .map((file) => ({ source: join('scripts', file), file: join('scripts', file) }));
}
