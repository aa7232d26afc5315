import type { Readable } from 'node:stream';

const linesMax = 50;
const lineCharsMax = 2000;

/** Reads a stream line-wise, hands each line on and keeps the last 50. */
export class LineTail {
  readonly #lines: string[] = [];
  readonly #onLine: (line: string) => void;
  #rest = '';

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  get lines(): readonly string[] {
    return [...this.#lines];
  }

  read(stream: Readable | null): void {
    if (stream === null) return;
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => this.#push(text));
    stream.on('end', () => this.#push('\n'));
    stream.on('error', () => {});
  }

  close(): void {
    this.#rest = '';
  }

  #push(text: string): void {
    const parts = (this.#rest + text).split('\n');
    this.#rest = (parts.pop() ?? '').slice(0, lineCharsMax);
    for (const part of parts) {
      const line = part.trimEnd().slice(0, lineCharsMax);
      if (line === '') continue;
      this.#lines.push(line);
      if (this.#lines.length > linesMax) this.#lines.shift();
      this.#onLine(line);
    }
  }
}
