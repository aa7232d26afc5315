/** Under which conditions a table was measured. */
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { basename } from 'node:path';

export function readConditions({ model, tiny, threads, rounds, llamaServer }) {
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    threads,
    rounds,
    loadBefore: readLoad(),
    node: process.version,
    commit: readCommit(),
    libllama: process.env.NEURON_LIBLLAMA_DIR ?? 'npm package',
    llamaServer: llamaServer ?? 'absent',
    model: describeFile(model),
    tiny: describeFile(tiny),
  };
}

/** 1, 5 and 15 minutes, and what runs now. */
export function readLoad() {
  return readFileSync('/proc/loadavg', 'utf8').split(' ').slice(0, 4).join(' ');
}

function describeFile(file) {
  return file === null ? 'absent' : `${basename(file)} (${Math.round(statSync(file).size / 1024 ** 2)} MiB)`;
}

function readCommit() {
  try {
    const git = (...args) => execFileSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain') === '' ? '' : ', changed');
  } catch {
    return 'unknown';
  }
}
