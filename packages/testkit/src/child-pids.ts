import { readdirSync, readFileSync } from 'node:fs';

/** Children of this process whose command line contains `program`. Linux only: elsewhere it is empty. */
export function childPids(program: string): readonly number[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && parentOf(name) === process.pid)
    .filter((pid) => readProc(pid, 'cmdline').includes(program))
    .map(Number);
}

/** The fourth field of /proc/PID/stat; the second one, the name, may hold spaces and parentheses. */
function parentOf(pid: string): number {
  const stat = readProc(pid, 'stat');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? -1);
}

function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
