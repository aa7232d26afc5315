/**
 * Builds a git checkout when its sources are newer than its last build; an installed package is left alone.
 *
 * Problem: the executables run compiled code, and a checkout that was just pulled has none, or an old one.
 *          Several processes may start at once, and two compilers writing the same files corrupt them.
 * Design:  a stamp file carries the time at which the last good build began; anything newer below packages/
 *          asks for a build. The lock is a directory that holds one file named after its owner's pid. Taking
 *          it renames a prepared directory onto it, which fails while it is not empty; a dead owner's file
 *          can be unlinked by one contender only. So there is never a lock without an owner, or two owners.
 * Limits:  contenders share one table of processes; a lock across containers or machines is not covered.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const cliDir = fileURLToPath(new URL('..', import.meta.url));
const checkoutDir = join(cliDir, '..', '..');
const stamp = join(cliDir, 'dist', '.built');
const lockWaitMsMax = 10 * 60_000;
const lockPollMs = 100;

/**
 * Returns when dist/ is as new as src/; ends the process with status 1 when it cannot be. `always` asks the
 * compiler even when nothing looks newer.
 */
export async function ensureBuilt({ root = checkoutDir, stampFile = stamp, always = false } = {}) {
  const sources = join(root, 'packages', 'cortex-cli', 'src');
  if (!existsSync(sources)) return;
  const isDue = () => always || isStale(root, stampFile);
  if (!isDue()) return;
  const compiler = findCompiler(root);
  if (compiler === undefined) {
    if (existsSync(join(sources, '..', 'dist', 'cortex-main.js'))) return;
    fail(`no compiler under ${root}; run "npm ci" there first`);
  }
  let complaint;
  try {
    complaint = await withLock(`${stampFile}.lock`, () =>
      isDue() ? build(root, stampFile, compiler) : undefined,
    );
  } catch (error) {
    fail(`cannot build ${root}: ${error.message}; run "npm run build" there as its owner`);
  }
  if (complaint !== undefined) fail(`the build of ${root} failed\n${complaint}`);
}

/** What the compiler complained of; undefined when it built. */
function build(root, stampFile, compiler) {
  const isFirst = !existsSync(stampFile);
  process.stderr.write(`building cortex ${isFirst ? '(first run) ' : ''}...\n`);
  const began = new Date();
  const result = spawnSync(process.execPath, [compiler, '-b'], { cwd: root, encoding: 'utf8' });
  if (result.error) throw result.error;
  if (result.status !== 0) return `${result.stdout}${result.stderr}`.trimEnd();
  writeFileSync(stampFile, '');
  utimesSync(stampFile, began, began);
  return undefined;
}

function fail(message) {
  process.stderr.write(`cortex: ${message}\n`);
  process.exit(1);
}

function findCompiler(root) {
  const require = createRequire(join(root, 'package.json'));
  try {
    return join(require.resolve('typescript/package.json'), '..', 'bin', 'tsc');
  } catch {
    return undefined;
  }
}

function isStale(root, stampFile) {
  const built = statSync(stampFile, { throwIfNoEntry: false })?.mtimeMs;
  if (built === undefined) return true;
  const isNewer = (path) => (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) > built;
  const packages = join(root, 'packages');
  return (
    isNewer(join(root, 'tsconfig.json')) ||
    isNewer(join(root, 'tsconfig.base.json')) ||
    readdirSync(packages).some((name) => {
      const path = join(packages, name);
      const src = join(path, 'src');
      if (isNewer(join(path, 'tsconfig.json')) || isNewer(join(path, 'package.json'))) return true;
      if (!existsSync(src)) return false;
      if (!existsSync(join(path, 'dist', '.tsbuildinfo'))) return true;
      // The folders count too: a deleted file leaves its mark there.
      return isNewer(src) || readdirSync(src, { recursive: true }).some((file) => isNewer(join(src, file)));
    })
  );
}

/** Runs `work` while no other process holds `lock`. */
async function withLock(lock, work, waitMsMax = lockWaitMsMax) {
  mkdirSync(join(lock, '..'), { recursive: true });
  const mine = String(process.pid);
  const deadline = Date.now() + waitMsMax;
  while (!tryLock(lock, mine)) {
    if (Date.now() > deadline) throw new Error(`${lock} was held for ${waitMsMax / 1000} s; remove it`);
    await new Promise((resolve) => setTimeout(resolve, lockPollMs));
  }
  try {
    return await work();
  } finally {
    rmSync(join(lock, mine), { force: true });
    removeEmpty(lock);
  }
}

function tryLock(lock, mine) {
  dropDeadOwner(lock);
  removeEmpty(lock);
  const prepared = mkdtempSync(`${lock}-`);
  writeFileSync(join(prepared, mine), '');
  try {
    renameSync(prepared, lock);
    return true;
  } catch (error) {
    rmSync(prepared, { recursive: true });
    if (['ENOTEMPTY', 'EEXIST', 'EPERM'].includes(error.code)) return false;
    throw error;
  }
}

function dropDeadOwner(lock) {
  for (const owner of existsSync(lock) ? readNames(lock) : []) {
    if (isAlive(Number(owner))) continue;
    try {
      unlinkSync(join(lock, owner));
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
}

function readNames(dir) {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function removeEmpty(dir) {
  try {
    rmdirSync(dir);
  } catch {
    // gone already, or someone's
  }
}

function isAlive(pid) {
  if (pid === process.pid) return false; // ours from an earlier life: this process does not hold it yet
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
