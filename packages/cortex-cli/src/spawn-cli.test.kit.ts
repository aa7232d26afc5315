/** For the tests: the built programs as processes of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { distDir } from './terminal.ts';

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
}

export class CliProcess {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  stdout = '';
  stderr = '';
  readonly #waiting = new Set<() => void>();

  constructor(program: 'cortex' | 'neuron', args: readonly string[], options: SpawnOptions = {}) {
    const { PATH = '', HOME = '' } = process.env;
    this.child = spawn(process.execPath, [join(distDir, `${program}-main.js`), ...args], {
      env: { PATH, HOME, ...options.env },
      cwd: options.cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.child.stdin?.on('error', () => {});
    this.child.stdin?.end(options.input ?? '');
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      for (const check of this.#waiting) check();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      for (const check of this.#waiting) check();
    });
    this.finished = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr });
        for (const check of this.#waiting) check();
      });
    });
  }

  /** The first match in what it has written or will write; rejects with all of it when it ends before. */
  output(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const check = (): void => {
        const found = pattern.exec(this.stdout + this.stderr);
        const ended = this.child.exitCode !== null || this.child.signalCode !== null;
        if (found === null && !ended) return;
        this.#waiting.delete(check);
        if (found !== null) resolve(found);
        else reject(new Error(`ended without ${pattern}:\n${this.stdout}${this.stderr}`));
      };
      this.#waiting.add(check);
      check();
    });
  }
}

export function runCli(
  program: 'cortex' | 'neuron',
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<Finished> {
  return new CliProcess(program, args, options).finished;
}
