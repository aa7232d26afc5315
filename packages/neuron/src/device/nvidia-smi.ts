/**
 * What nvidia-smi knows about this machine's GPUs.
 *
 * Problem: any field can be `[N/A]`, `[Not Supported]`, `[Unknown Error]` (MIG, vGPU, laptops, a GPU off
 * the bus), the binary can be missing, hang, or fail because driver and library differ after an update.
 * Design: a field that is no number is null and costs that field only; a row without an index is no device;
 * what went wrong as a whole becomes one sentence. Nothing here throws.
 * Source: `nvidia-smi --help-query-gpu`; exit codes 6, 9, 12, 18 in nvidia-smi(1), section RETURN VALUE.
 */

export interface NvidiaGpu {
  readonly index: number;
  readonly name: string;
  readonly memoryTotalMb: number | null;
  readonly memoryUsedMb: number | null;
  readonly memoryFreeMb: number | null;
  readonly utilizationPct: number | null;
  readonly tempC: number | null;
  readonly computeCapability: string | null;
  readonly driverVersion: string | null;
}

export interface NvidiaReport {
  readonly gpus: readonly NvidiaGpu[];
  readonly driverVersion: string | null;
  readonly cudaVersion: string | null;
  /** Why a machine that has the driver's tools cannot use its GPUs; null = it can, or it has none. */
  readonly unavailableReason: string | null;
}

export interface CommandResult {
  readonly exitCode: number | null;
  /** Both streams: nvidia-smi writes its errors to stdout. */
  readonly output: string;
  /** The program does not exist. */
  readonly missing: boolean;
  readonly timedOut: boolean;
}

/** Runs a program to its end or its time limit; never rejects. */
export type RunCommand = (file: string, args: readonly string[], timeoutMs: number) => Promise<CommandResult>;

const queryArgs: readonly string[] = [
  '--query-gpu=index,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu,' +
    'compute_cap,driver_version',
  '--format=csv,noheader,nounits',
];
const fieldCount = 9;
/** A machine with persistence mode off and eight GPUs takes several seconds. */
const timeoutMs = 10_000;
const textMax = 500;

const none: NvidiaReport = { gpus: [], driverVersion: null, cudaVersion: null, unavailableReason: null };

/** GPUs, driver and CUDA version. `withVersions` false skips the second call: for polling. */
export async function readNvidiaSmi(run: RunCommand, withVersions = true): Promise<NvidiaReport> {
  const query = await run('nvidia-smi', queryArgs, timeoutMs);
  if (query.missing) return none;
  const gpus = parseGpuRows(query.output);
  const unavailableReason = gpus.length > 0 ? null : toUnavailableReason(query);
  const driverVersion = gpus.find((gpu) => gpu.driverVersion !== null)?.driverVersion ?? null;
  if (!withVersions || gpus.length === 0)
    return { gpus, driverVersion, cudaVersion: null, unavailableReason };
  const header = await run('nvidia-smi', [], timeoutMs);
  return {
    gpus,
    driverVersion: driverVersion ?? /Driver Version\s*:\s*([\d.]+)/.exec(header.output)?.[1] ?? null,
    cudaVersion: /CUDA (?:UMD )?Version\s*:\s*([\d.]+)/.exec(header.output)?.[1] ?? null,
    unavailableReason,
  };
}

/** The rows of the CSV that describe a GPU; lines of any other kind are passed over. */
export function parseGpuRows(csv: string): readonly NvidiaGpu[] {
  const gpus: NvidiaGpu[] = [];
  for (const line of csv.split('\n')) {
    const fields = line.split(',').map((field) => field.trim());
    if (fields.length < fieldCount || !/^\d{1,4}$/.test(fields[0] ?? '')) continue;
    if (gpus.some(({ index }) => index === Number(fields[0]))) continue;
    // A name with a comma in it: the other fields never hold one.
    const rest = fields.slice(fields.length - (fieldCount - 2));
    const name = fields.slice(1, fields.length - (fieldCount - 2)).join(', ');
    gpus.push({
      index: Number(fields[0]),
      name: isKnown(name) ? name : 'NVIDIA GPU',
      memoryTotalMb: toNumber(rest[0]),
      memoryUsedMb: toNumber(rest[1]),
      memoryFreeMb: toNumber(rest[2]),
      utilizationPct: toNumber(rest[3]),
      tempC: toNumber(rest[4]),
      computeCapability: isKnown(rest[5]) ? (rest[5] ?? null) : null,
      driverVersion: isKnown(rest[6]) ? (rest[6] ?? null) : null,
    });
  }
  return gpus;
}

function toUnavailableReason(query: CommandResult): string | null {
  if (query.timedOut)
    return `nvidia-smi did not answer within ${timeoutMs / 1000} s; the driver may be stuck`;
  const lines = query.output.replace(/[^\P{C}\n]|\ufffd/gu, ' ').trim();
  const text = lines.replace(/\s*\n\s*/g, '; ').slice(0, textMax);
  if (/driver\/library version mismatch/i.test(text)) {
    return `${text}: the driver was updated under a running kernel module; reload it or reboot`;
  }
  if (/no devices were found/i.test(text)) return null;
  if (query.exitCode !== 0) return text === '' ? `nvidia-smi failed with exit code ${query.exitCode}` : text;
  return query.output.trim() === '' ? null : `nvidia-smi's answer names no GPU: ${text}`;
}

function isKnown(field: string | undefined): boolean {
  return (
    field !== undefined &&
    field !== '' &&
    !/^\[.*\]$|^n\/?a$|not supported|unknown error|insufficient permissions|requested functionality/i.test(
      field,
    )
  );
}

function toNumber(field: string | undefined): number | null {
  if (!isKnown(field)) return null;
  const number = Number.parseFloat(field ?? '');
  return number >= 0 && Number.isFinite(number) ? number : null;
}
