/**
 * Opens libllama and proves that it is the one the bindings were generated from.
 *
 * Problem: a C library of another version has other struct layouts; calling it with ours corrupts memory. And
 * its log goes through a callback that any native thread may call, while JavaScript may run on one thread
 * only.
 *
 * Design: load the three libraries in the order of their dependencies, bind every generated prototype (a
 * symbol that is gone is found here, not at the first request), then compare version and default parameters
 * with what the headers said. Only after that is anything else called. The log never reaches JavaScript: it
 * goes to stderr natively, or nowhere. Libraries are never unloaded: backends keep threads and registries for
 * the process's life, and a second load of the same files in another worker gets the same native state.
 */

import { AppError } from 'cortex-core/wire/errors';
import type { BackendDevice } from 'cortex-core/wire/inference';
import koffi, { type LibraryHandle, type TypeObject } from 'koffi';
import {
  expectedDefaults,
  expectedVersion,
  GgmlBackendDevType,
  type LlamaApi,
  pinnedRelease,
  prototypes,
  structLayouts,
} from './bindings.gen.ts';
import { type FindLibraryOptions, findLibrary, type LibraryFiles } from './find-library.ts';
import { bindNextn, type NextnFunctions } from './nextn-functions.ts';

export interface LoadLibraryOptions extends FindLibraryOptions {
  /** Whether libllama and ggml may write their log to stderr; default true. */
  readonly nativeLog?: boolean;
}

/** An opened libllama. Belongs to the thread that opened it; stays loaded for the process's life. */
export interface Libllama {
  readonly api: LlamaApi;
  /** Null where the library does not have them. */
  readonly nextn: NextnFunctions | null;
  readonly files: LibraryFiles;
  /** What llama_version() says, e.g. `0.4.0-dev`. */
  readonly version: string;
}

/** Native handles of the devices, in the order of `listDevices`. */
export type DeviceAddress = bigint;

/**
 * Opens libllama and its backends.
 * Errors: `load_failed` when it is missing, cannot be opened or is another version; never a crash.
 */
export function loadLibrary(options: LoadLibraryOptions = {}): Libllama {
  const files = findLibrary(options);
  const opened = openAll(files);
  const api = bindAll(opened, files);
  const version = checkLibrary(api, files);
  if (options.nativeLog === false) silenceLog(api, opened.llama);
  api.ggml_backend_load_all_from_path(files.directory);
  if (files.fallbackDirectory !== null && files.variant === 'cuda' && !hasGpu(api)) {
    api.ggml_backend_load_all_from_path(files.fallbackDirectory);
  }
  api.llama_backend_init();
  if (listDevices(api).length === 0) {
    throw new AppError('load_failed', `no ggml backend could be loaded from ${files.directory}`);
  }
  return { api, nextn: bindNextn(opened.llama), files, version };
}

/** Every device that ggml sees, the CPU too. MiB. */
export function listDevices(api: LlamaApi): BackendDevice[] {
  return listDeviceAddresses(api).map((address, index) => {
    const free = new BigUint64Array(1);
    const total = new BigUint64Array(1);
    api.ggml_backend_dev_memory(address, free, total);
    return {
      index,
      name: api.ggml_backend_dev_name(address) ?? `device ${index}`,
      description: (api.ggml_backend_dev_description(address) ?? '').trim(),
      kind: deviceKind(api.ggml_backend_dev_type(address)),
      memory: { freeMb: toMib(free[0] ?? 0n), totalMb: toMib(total[0] ?? 0n) },
    };
  });
}

export function listDeviceAddresses(api: LlamaApi): DeviceAddress[] {
  const count = Number(api.ggml_backend_dev_count());
  return Array.from({ length: count }, (_, index) => api.ggml_backend_dev_get(index) as bigint);
}

interface OpenedLibraries {
  readonly llama: LibraryHandle;
  readonly ggml: LibraryHandle;
  readonly ggmlBase: LibraryHandle;
}

function openAll(files: LibraryFiles): OpenedLibraries {
  const open = (path: string): LibraryHandle => {
    try {
      // Global: the backends that ggml opens later resolve their symbols against these.
      return koffi.load(path, { global: true });
    } catch (cause) {
      throw new AppError('load_failed', `cannot open ${path}: ${reason(cause)}`, { cause });
    }
  };
  const ggmlBase = open(files.ggmlBase);
  const ggml = open(files.ggml);
  return { ggmlBase, ggml, llama: open(files.llama) };
}

function bindAll(opened: OpenedLibraries, files: LibraryFiles): LlamaApi {
  const types = new Map<string, TypeObject | string>([
    ['pointer', 'void *'],
    ['str', 'str'],
  ]);
  for (const [name, layout] of Object.entries(structLayouts)) {
    // Anonymous: koffi's type names are global per thread, and a library may be opened twice.
    const members = layout.fields.map(([field, type]) => [field, types.get(type) ?? type] as const);
    const type = koffi.struct(Object.fromEntries(members));
    if (koffi.sizeof(type) !== layout.size) {
      throw mismatch(files, `sizeof(${name})`, layout.size, koffi.sizeof(type));
    }
    types.set(`struct ${name}`, type);
  }
  const bound: Record<string, unknown> = {};
  for (const [name, [result, args]] of Object.entries(prototypes)) {
    const homes = name.startsWith('llama_') ? [opened.llama] : [opened.ggml, opened.ggmlBase];
    bound[name] = bindOne(
      homes,
      name,
      types.get(result) ?? result,
      args.map((arg) => types.get(arg) ?? arg),
    );
    if (bound[name] === null) throw mismatch(files, `function ${name}`, 'present', 'missing');
  }
  return bound as unknown as LlamaApi;
}

function bindOne(
  homes: readonly LibraryHandle[],
  name: string,
  result: TypeObject | string,
  args: (TypeObject | string)[],
): unknown {
  for (const home of homes) {
    try {
      return home.func(name, result, args);
    } catch {
      // Not in this library; the caller reports a symbol that none of them has.
    }
  }
  return null;
}

/**
 * The library's version, when it is the one the bindings were generated from. A field that moved or a default
 * that changed shows as a value in the wrong place. Errors: `load_failed` with what was expected and what was
 * found.
 */
export function checkLibrary(
  api: Pick<LlamaApi, 'llama_version' | 'llama_model_default_params' | 'llama_context_default_params'>,
  files: LibraryFiles,
): string {
  const version = api.llama_version() ?? '';
  if (version !== expectedVersion && !version.startsWith(`${expectedVersion}-`)) {
    throw mismatch(files, 'llama_version()', expectedVersion, version);
  }
  const found = {
    llama_model_params: api.llama_model_default_params(),
    llama_context_params: api.llama_context_default_params(),
  };
  for (const [struct, expected] of Object.entries(expectedDefaults)) {
    const values = found[struct as keyof typeof found] as unknown as Record<string, unknown>;
    for (const [field, want] of Object.entries(expected)) {
      if (values[field] !== want) {
        throw mismatch(files, `the default of ${struct}.${field}`, want, values[field]);
      }
    }
  }
  return version;
}

/**
 * The log callback becomes llama_max_devices: a function without parameters, state or side effects. Called as
 * `callback(level, text, user_data)` it ignores the arguments, which is harmless on every ABI we support
 * (System V x86-64, AAPCS64, Windows x64 and arm64: the caller passes them in registers and cleans up). A
 * callback into JavaScript would be called from foreign threads; NULL would mean "stderr". llama_log_set sets
 * ggml's too.
 */
function silenceLog(api: LlamaApi, llama: LibraryHandle): void {
  const ignoreArguments = llama.symbol('llama_max_devices') as bigint;
  api.llama_log_set(ignoreArguments, null);
}

function hasGpu(api: LlamaApi): boolean {
  return listDevices(api).some((device) => device.kind === 'gpu' || device.kind === 'igpu');
}

function deviceKind(type: number): BackendDevice['kind'] {
  switch (type) {
    case GgmlBackendDevType.GGML_BACKEND_DEVICE_TYPE_CPU:
      return 'cpu';
    case GgmlBackendDevType.GGML_BACKEND_DEVICE_TYPE_GPU:
      return 'gpu';
    case GgmlBackendDevType.GGML_BACKEND_DEVICE_TYPE_IGPU:
      return 'igpu';
    default:
      return 'accel';
  }
}

function mismatch(files: LibraryFiles, what: string, expected: unknown, found: unknown): AppError {
  return new AppError(
    'load_failed',
    `${files.llama} is not llama.cpp ${pinnedRelease.llamaCpp}: ${what} should be ${String(expected)}, ` +
      `found ${String(found)}; install the platform package of node-llama-cpp ${pinnedRelease.nodeLlamaCpp}`,
  );
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function toMib(bytes: bigint): number {
  return Math.floor(Number(bytes / 1024n) / 1024);
}
