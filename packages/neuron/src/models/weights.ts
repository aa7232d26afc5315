/** Where libllama puts the tensors of a file (src/llama-model.cpp, load_tensors). Pure. */
import type { GgufTensor } from './gguf-header.ts';

export interface WeightPlaces {
  readonly deviceBytes: number;
  /** Stays in the host's memory. */
  readonly hostBytes: number;
  /** The first layer that lies on the device. */
  readonly firstLayer: number;
}

/**
 * `gpuLayers` counts from the end, the output being the last; null = all, 0 = everything on the host. The
 * token embedding stays on the host; a model without an output matrix of its own has a copy of it on the GPU.
 */
export function placeWeights(
  tensors: readonly GgufTensor[],
  layerCount: number,
  gpuLayers: number | null,
): WeightPlaces {
  const firstLayer = gpuLayers === null ? 0 : Math.max(0, layerCount + 1 - gpuLayers);
  const hasOutput = tensors.some(({ name }) => name === 'output.weight');
  let deviceBytes = 0;
  let hostBytes = 0;
  for (const { name, bytes } of tensors) {
    const size = bytes ?? 0;
    if (isInput(name)) {
      hostBytes += size;
      if (name === 'token_embd.weight' && !hasOutput && firstLayer <= layerCount) deviceBytes += size;
    } else if ((layerOf(name) ?? layerCount) >= firstLayer) {
      deviceBytes += size;
    } else {
      hostBytes += size;
    }
  }
  return { deviceBytes, hostBytes, firstLayer };
}

/** Tensors of a type that this program does not know count with the file's size. */
export function weightBytes(tensors: readonly GgufTensor[], fileBytes: number): number {
  if (tensors.some(({ bytes }) => bytes === null)) return fileBytes;
  return tensors.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
}

function isInput(name: string): boolean {
  return /^(token_embd|token_types|position_embd|per_layer_token_embd)\b/.test(name);
}

function layerOf(name: string): number | null {
  const match = /^blk\.(\d+)\./.exec(name);
  return match === null ? null : Number(match[1]);
}
