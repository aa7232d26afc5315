/** What can be known about model files before the owner of a device sees them: a broken one stays out. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';
import { GgufFault, type GgufHeader, type GgufTensor, readGgufHeader } from './gguf-header.ts';
import type { ReadHeader } from './header-cache.ts';

export interface CheckedModel {
  /** Of the first file. */
  readonly header: GgufHeader;
  /** All shards together, as what follows. */
  readonly fileBytes: number;
  readonly tensors: readonly GgufTensor[];
  /** Of the LoRA adapters. */
  readonly loraBytes: number;
}

/** Throws `model_file_not_found` or `invalid_model_file` with a sentence that says what is wrong. */
export async function checkModelFiles(
  files: readonly string[],
  lora: readonly { readonly file: string }[] = [],
  read: ReadHeader = readGgufHeader,
): Promise<CheckedModel> {
  const headers: GgufHeader[] = [];
  for (const file of files) headers.push(await checkOne(file, read));
  const [first] = headers;
  if (first === undefined) throw new AppError('model_file_not_found', 'the model has no files');
  if (!first.metadata.has('general.architecture')) {
    throw invalid(files[0] ?? '', 'it names no architecture (general.architecture)');
  }
  const tensors = headers.flatMap((header) => header.tensors);
  if (isPredictionAlone(first, tensors)) {
    // libllama takes it, and the process ends at its first graph.
    throw invalid(
      files[0] ?? '',
      "it holds a model's prediction layers alone; load the file of the model itself",
    );
  }
  return {
    header: first,
    fileBytes: headers.reduce((sum, { fileBytes }) => sum + fileBytes, 0),
    tensors,
    loraBytes: await checkAdapters(lora, first),
  };
}

/** Such files go with one of the model, for programs that want the layers apart. */
function isPredictionAlone({ metadata }: GgufHeader, tensors: readonly GgufTensor[]): boolean {
  const declared = metadata.get(`${String(metadata.get('general.architecture'))}.nextn_predict_layers`);
  return Number(declared ?? 0) > 0 && !tensors.some(({ name }) => name.startsWith('blk.0.'));
}

/** The bytes of all adapters. One for another architecture would fail after the model's load. */
async function checkAdapters(lora: readonly { readonly file: string }[], model: GgufHeader): Promise<number> {
  let bytes = 0;
  for (const { file } of lora) {
    const { metadata, fileBytes } = await checkOne(file);
    if (metadata.get('general.type') !== 'adapter')
      throw invalid(file, 'it is no LoRA adapter (general.type)');
    const [own, wanted] = [metadata, model.metadata].map((each) => each.get('general.architecture'));
    if (own !== wanted)
      throw invalid(file, `it is an adapter for ${String(own)}, the model is ${String(wanted)}`);
    bytes += fileBytes;
  }
  return bytes;
}

async function checkOne(file: string, read: ReadHeader = readGgufHeader): Promise<GgufHeader> {
  try {
    if (!(await stat(file)).isFile()) throw invalid(file, 'it is not a file');
    const header = await read(file);
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
