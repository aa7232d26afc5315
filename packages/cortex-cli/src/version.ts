import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { distDir } from './terminal.ts';

export interface CliVersion {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
}

export function readVersion(): CliVersion {
  const manifest = JSON.parse(readFileSync(join(distDir, '../package.json'), 'utf8')) as { version: string };
  return {
    version: manifest.version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
  };
}

/** `cortex 0.1.0 (node v20.20.2, linux-x64)` */
export function formatVersion(program: string, found: CliVersion): string {
  return `${program} ${found.version} (node ${found.node}, ${found.platform})`;
}
