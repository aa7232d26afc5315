/** What can be known about model files before the owner of a device sees them: a broken one stays out. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';
import { GgufFault, type GgufHeader, readGgufHeader } from './gguf-header.ts';

export interface CheckedModel {
  /** Of the first file. */
  readonly header: GgufHeader;
  /** All shards together. */
  readonly fileBytes: number;
}

/** Throws `model_file_not_found` or `invalid_model_file` with a sentence that says what is wrong. */
export async function checkModelFiles(files: readonly string[]): Promise<CheckedModel> {
  let first: GgufHeader | null = null;
  let fileBytes = 0;
  for (const file of files) {
    const header = await checkOne(file);
    first ??= header;
    fileBytes += header.fileBytes;
  }
  if (first === null) throw new AppError('model_file_not_found', 'the model has no files');
  if (!first.metadata.has('general.architecture')) {
    throw invalid(files[0] ?? '', 'it names no architecture (general.architecture)');
  }
  return { header: first, fileBytes };
}

async function checkOne(file: string): Promise<GgufHeader> {
  try {
    if (!(await stat(file)).isFile()) throw invalid(file, 'it is not a file');
    const header = await readGgufHeader(file);
    checkTensors(file, header);
    return header;
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    if (cause instanceof GgufFault) throw invalid(file, cause.message);
    const { code } = cause as NodeJS.ErrnoException;
    const name = basename(file);
    if (code === 'ENOENT') throw new AppError('model_file_not_found', `${name} does not exist`, { cause });
    if (code === 'EACCES') throw invalid(file, 'this user may not read it');
    if (code === 'ELOOP') throw invalid(file, 'it is a link to itself');
    if (code === 'EIO') throw invalid(file, 'the disk cannot read it; copy or download it again');
    throw cause;
  }
}

function checkTensors(file: string, header: GgufHeader): void {
  if (header.tensors.length === 0) throw invalid(file, 'it holds no tensors');
  for (const tensor of header.tensors) {
    const end = header.dataOffset + tensor.offset + (tensor.bytes ?? 0);
    if (end <= header.fileBytes) continue;
    throw invalid(
      file,
      `it is cut short: ${mib(header.fileBytes)} of at least ${mib(end)} MiB; copy or download it again`,
    );
  }
}

function invalid(file: string, why: string): AppError {
  return new AppError('invalid_model_file', `${basename(file)} is not usable: ${why}`);
}

function mib(bytes: number): string {
  return (bytes / (1024 * 1024)).toFixed(1);
}
