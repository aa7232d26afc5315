import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';

const shardName = /^(.*-)(\d{5})(-of-)(\d{5})(\.gguf)$/;

/** All files of a GGUF, the shards of a split one in order. */
function listModelFiles(file: string): string[] {
  const match = file.match(shardName);
  if (match === null) return [file];
  const [, head, , of, count, tail] = match as unknown as [string, string, string, string, string, string];
  return Array.from({ length: Number(count) }, (_, index) => {
    return `${head}${String(index + 1).padStart(5, '0')}${of}${count}${tail}`;
  });
}

/**
 * Looks at the files before libllama does, for messages that name the fault. Returns their bytes together.
 * Errors: `model_file_not_found`, `invalid_model_file`.
 */
export function checkModelFiles(modelId: string, file: string): number {
  let total = 0;
  for (const path of listModelFiles(file)) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isFile()) {
      throw new AppError('model_file_not_found', `model "${modelId}": there is no file ${basename(path)}`, {
        detail: { path },
      });
    }
    const found = readMagic(path);
    if (found !== 'GGUF') {
      const what = stat.size === 0 ? 'is empty' : 'does not start with "GGUF"';
      throw new AppError(
        'invalid_model_file',
        `model "${modelId}": ${basename(path)} ${what}; download it again or give a GGUF file`,
        { detail: { path, bytes: stat.size } },
      );
    }
    total += stat.size;
  }
  return total;
}

function readMagic(path: string): string {
  const handle = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(4);
    const count = readSync(handle, bytes, 0, 4, 0);
    return Buffer.from(bytes.subarray(0, count)).toString('latin1');
  } finally {
    closeSync(handle);
  }
}
