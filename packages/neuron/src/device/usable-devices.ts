/**
 * Which discovered devices this libllama can use, and why it cannot use the NVIDIA GPUs that are there. Pure.
 *
 * What can go wrong: the driver's library and kernel module differ (nvidia-smi itself fails and no GPU is
 * listed); the package has no CUDA; it has, and yet libllama sees no CUDA device, because the driver is too
 * old for it, the container has not been given the GPU, or the CUDA runtime is missing; it sees some and
 * not others.
 */
import type { BackendDevice } from 'cortex-core/wire/inference';
import { type DiscoveredDevice, type Inventory, mergeBackendDevices } from './discovery.ts';

export interface OpenedLibrary {
  /** null for an own build: its devices tell. */
  readonly variant: 'cuda' | 'vulkan' | 'metal' | 'cpu' | null;
  readonly packageName: string | null;
  /** Whether GPU backends for older drivers are installed beside. */
  readonly hasFallback: boolean;
}

export interface UsableDevices {
  /** With `cudaUnavailableReason` set where NVIDIA GPUs cannot be used. */
  readonly inventory: Inventory;
  readonly usable: readonly DiscoveredDevice[];
  /** GPUs that are listed and not used. */
  readonly unusable: readonly DiscoveredDevice[];
  /** A GPU was meant to be used: nothing goes to the CPU in its stead. */
  readonly refuses: boolean;
}

/** `backend`: libllama's own list; null when it was not asked, or did not answer. */
export function chooseUsableDevices(
  found: Inventory,
  library: OpenedLibrary,
  backend: readonly BackendDevice[] | null,
): UsableDevices {
  const inventory = backend === null ? found : mergeBackendDevices(found, backend);
  const gpus = inventory.devices.filter((device) => device.nvidiaIndex !== null);
  const blind = backend === null ? gpus : gpus.filter((device) => device.backendIndex === null);
  const reason = explain(found, library, gpus, blind, backend);
  const unusable = reason === null ? [] : blind;
  return {
    inventory: { ...inventory, cudaUnavailableReason: reason },
    usable: inventory.devices.filter((device) => !unusable.includes(device)),
    unusable,
    refuses: reason !== null && library.variant !== 'cpu',
  };
}

function explain(
  found: Inventory,
  library: OpenedLibrary,
  gpus: readonly DiscoveredDevice[],
  blind: readonly DiscoveredDevice[],
  backend: readonly BackendDevice[] | null,
): string | null {
  if (found.cudaUnavailableReason !== null) return found.cudaUnavailableReason;
  if (blind.length === 0) return null;
  if (library.variant === 'cpu') {
    const name = library.packageName ?? '@node-llama-cpp/linux-x64';
    return /(linux|win)-x64$/.test(name)
      ? `${name} has no CUDA; install ${name}-cuda of the same version`
      : `${name} has no CUDA, and no package for this machine has; build llama.cpp with it and set ` +
          'NEURON_LIBLLAMA_DIR';
  }
  // Not asked is not seen: the owner of the GPU will say what is wrong when it starts.
  if (backend === null) return null;
  const which =
    blind.length < gpus.length
      ? `no ${blind.map(({ id }) => id).join(', ')}`
      : library.variant === 'vulkan'
        ? 'no Vulkan device'
        : 'no CUDA device';
  const driver = `driver ${found.driverVersion ?? 'unknown'}, CUDA ${found.cudaVersion ?? 'unknown'}`;
  const sees =
    `libllama (${library.packageName ?? 'own build'}) sees ${which} although nvidia-smi lists ` +
    `${gpus.length} (${driver})`;
  return `${sees}: ${hintFor(library, Number.parseInt(found.cudaVersion ?? '', 10))}`;
}

/**
 * node-llama-cpp 3.21.1: the package is linked with the runtime of CUDA 13, the backends of its -ext package
 * with that of CUDA 12 (NEEDED entries of libggml-cuda.so).
 */
function hintFor({ variant, packageName, hasFallback }: OpenedLibrary, driverMajor: number): string {
  if (variant === 'vulkan') {
    return (
      "are the Vulkan loader (libvulkan) and the GPU's Vulkan driver installed, and the GPU given to " +
      'this container?'
    );
  }
  if (packageName === null) {
    return 'was it built with CUDA? Is the CUDA runtime installed, and the GPU given to this container?';
  }
  if (driverMajor < 12) return 'the driver is too old, CUDA 12 or later is needed; update it';
  if (driverMajor === 12 && !hasFallback) {
    return `it is built for CUDA 13; install ${packageName}-ext of the same version, or update the driver`;
  }
  const major = driverMajor === 12 ? 12 : 13;
  return (
    `is the runtime of CUDA ${major} installed (libcudart, libcublas), and the GPU given to this ` +
    'container? [engine] native_log = true shows more'
  );
}
