import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { it } from 'node:test';
import { readGitSha } from './git-sha.ts';

const sha = '0123456789abcdef0123456789abcdef01234567';

it('readGitSha() reads every form of a checkout, and nothing else', (context) => {
  const root = mkdtempSync(join(tmpdir(), 'git-sha-'));
  context.after(() => rmSync(root, { recursive: true }));
  const checkout = (name: string, files: Readonly<Record<string, string>>): string => {
    for (const [file, text] of Object.entries(files)) {
      const path = join(root, name, file);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
    return readGitSha(join(root, name));
  };
  const onMain = 'ref: refs/heads/main\n';
  const cases: [string, Readonly<Record<string, string>>, string][] = [
    ['branch', { '.git/HEAD': onMain, '.git/refs/heads/main': `${sha}\n` }, sha],
    ['detached', { '.git/HEAD': `${sha}\n` }, sha],
    ['packed', { '.git/HEAD': onMain, '.git/packed-refs': `# pack-refs\n${sha} refs/heads/main\n` }, sha],
    [
      'worktree',
      {
        '.git': 'gitdir: ../branch/.git/worktrees/w\n',
        '../branch/.git/worktrees/w/HEAD': onMain,
        '../branch/.git/worktrees/w/commondir': '../..\n',
      },
      sha,
    ],
    ['unborn', { '.git/HEAD': onMain }, 'unknown'],
    ['broken', { '.git/HEAD': 'ref: refs/../../etc/passwd x\n' }, 'unknown'],
    ['none', { 'package.json': '{}' }, 'unknown'],
    ['dangling', { '.git': 'gitdir: /nowhere\n' }, 'unknown'],
  ];
  for (const [name, files, expected] of cases) assert.equal(checkout(name, files), expected, name);
});
