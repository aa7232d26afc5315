/**
 * Which commit this is, read from the checkout's own files: no git is run, and an installed package has none.
 */
import { readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

const shaPattern = /^[0-9a-f]{40}([0-9a-f]{24})?$/;

/** The commit that `root` is at, in hex; `unknown` when it is no checkout or cannot be read. */
export function readGitSha(root: string): string {
  const dir = findGitDir(root);
  if (dir === null) return 'unknown';
  const head = readLine(join(dir, 'HEAD'));
  const ref = /^ref: (refs\/\S+)$/.exec(head)?.[1];
  if (ref === undefined) return shaPattern.test(head) ? head : 'unknown';
  // A linked worktree has a HEAD of its own, and its branches where the main one has them.
  const common = resolve(dir, readLine(join(dir, 'commondir')) || '.');
  const sha = readLine(join(dir, ref)) || readLine(join(common, ref)) || findPacked(common, ref);
  return shaPattern.test(sha) ? sha : 'unknown';
}

/** A worktree's and a submodule's `.git` is a file that says where it is. */
function findGitDir(root: string): string | null {
  const path = join(root, '.git');
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) return null;
  if (found.isDirectory()) return path;
  const target = /^gitdir: (.+)$/.exec(readLine(path))?.[1];
  return target === undefined ? null : resolve(root, target);
}

function findPacked(dir: string, ref: string): string {
  const line = readText(join(dir, 'packed-refs'))
    .split('\n')
    .find((each) => each.endsWith(` ${ref}`));
  return line?.split(' ')[0] ?? '';
}

function readLine(file: string): string {
  return readText(file).trim();
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
