/**
 * The functions for a model's own layers for multi-token prediction ("nextn").
 *
 * They are exported by every build of the pinned release, but declared in its staging header
 * (src/llama-ext.h) and therefore with C++ names: `bindings.gen.ts` has none of them. A C++ name says the
 * types of the parameters, so a function whose parameters changed is not found, and then the layers are not
 * used (docs/decisions/2026-11-25-own-prediction-layers.md).
 */
import type { LibraryHandle } from 'koffi';

/** Addresses are those of llama_context. */
export interface NextnFunctions {
  /**
   * Hidden states come out of the next decode calls: of every entry in the order of the batch, or, masked, of
   * those with an output.
   */
  setStates(context: bigint, isOn: boolean, isMasked: boolean): void;
  /** The states of the last decode call, rows of llama_model_n_embd_out floats; null where there are none. */
  states(context: bigint): bigint | null;
  /** That of one entry of the last batch; null where it has none. */
  stateOf(context: bigint, entry: number): bigint | null;
  /** Which of the layers a context of type MTP computes; 0 = the first. */
  setLayer(context: bigint, layer: number): void;
}

/** By how the compilers write the same prototypes: Itanium's ABI (GCC, Clang) and Microsoft's. */
const names = {
  setStates: [
    '_Z26llama_set_embeddings_nextnP13llama_contextbb',
    '?llama_set_embeddings_nextn@@YAXPEAUllama_context@@_N1@Z',
  ],
  states: [
    '_Z26llama_get_embeddings_nextnP13llama_context',
    '?llama_get_embeddings_nextn@@YAPEAMPEAUllama_context@@@Z',
  ],
  stateOf: [
    '_Z30llama_get_embeddings_nextn_ithP13llama_contexti',
    '?llama_get_embeddings_nextn_ith@@YAPEAMPEAUllama_context@@H@Z',
  ],
  setLayer: [
    '_Z28llama_set_nextn_layer_offsetP13llama_contexti',
    '?llama_set_nextn_layer_offset@@YAXPEAUllama_context@@H@Z',
  ],
} as const;

/** Null when one of them is missing. */
export function bindNextn(llama: Pick<LibraryHandle, 'func'>): NextnFunctions | null {
  const bind = (all: readonly string[], result: string, args: string[]): unknown => {
    for (const name of all) {
      try {
        return llama.func(name, result, args);
      } catch {
        // Another compiler's name, or none.
      }
    }
    return null;
  };
  const bound = {
    setStates: bind(names.setStates, 'void', ['void *', 'bool', 'bool']),
    states: bind(names.states, 'void *', ['void *']),
    stateOf: bind(names.stateOf, 'void *', ['void *', 'int32']),
    setLayer: bind(names.setLayer, 'void', ['void *', 'int32']),
  };
  return Object.values(bound).includes(null) ? null : (bound as unknown as NextnFunctions);
}
