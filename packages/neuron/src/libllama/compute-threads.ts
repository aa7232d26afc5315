import koffi from 'koffi';
import { GgmlBackendDevType, type LlamaApi } from './bindings.gen.ts';
import { listDeviceAddresses } from './load-library.ts';
import { allocateNative } from './native-memory.ts';

/** A team of CPU threads that stays; without one ggml starts and joins its threads in every single step. */
export interface ComputeThreads {
  /** ggml_threadpool_t, for llama_attach_threadpool. */
  readonly address: bigint;
  /** Not before every context that it is attached to is freed. Idempotent. */
  close(): void;
}

/**
 * Threads sleep as soon as a step is done. Polling for the next one, ggml's default for 100 ms and more,
 * takes the core from whoever sends the tokens. One stream of SmolLM2 over HTTP, part of a bare loop's rate,
 * two runs each on a 2-core EPYC: 0.91 and 0.88 with it, 1.00 and 0.95 without.
 */
const pollLevel = 0;
/** struct ggml_threadpool_params takes 528 (ggml.h: 512 bool, int, enum, uint32, 2 bool); some to spare. */
const paramsBytes = 1024;
/** Of `poll`: behind 512 bool, an int and an enum. */
const pollOffset = 520;

/**
 * Null when one thread is enough or the CPU backend has no thread pools. The functions are the backend's own
 * and which variant of it is loaded depends on the processor: they are asked for by name, as llama.cpp's own
 * tools do.
 */
export function startComputeThreads(api: LlamaApi, count: number): ComputeThreads | null {
  if (count < 2) return null;
  const cpu = listDeviceAddresses(api).find(
    (device) => api.ggml_backend_dev_type(device) === GgmlBackendDevType.GGML_BACKEND_DEVICE_TYPE_CPU,
  );
  if (cpu === undefined) return null;
  const registry = api.ggml_backend_dev_backend_reg(cpu);
  const create = functionOf(api, registry as bigint, 'ggml_threadpool_new', 'void *');
  const free = functionOf(api, registry as bigint, 'ggml_threadpool_free', 'void');
  if (create === null || free === null) return null;
  const params = allocateNative(paramsBytes);
  api.ggml_threadpool_params_init(params.address, count);
  new Uint32Array(params.buffer)[pollOffset / 4] = pollLevel;
  let address = create(params.address) as bigint | null;
  params.close();
  if (address === null) return null;
  return {
    address,
    close() {
      if (address !== null) free(address);
      address = null;
    },
  };
}

function functionOf(
  api: LlamaApi,
  registry: bigint,
  name: string,
  result: string,
): ((argument: bigint) => unknown) | null {
  const address = api.ggml_backend_reg_get_proc_address(registry, name) as bigint | null;
  if (address === null) return null;
  return koffi.decode(address, koffi.proto(result, ['void *'])) as (argument: bigint) => unknown;
}
