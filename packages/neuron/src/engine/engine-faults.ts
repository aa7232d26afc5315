/** Where tests make native work go wrong (NEURON_FAULT); absent in normal life. */
export interface EngineFaults {
  /** Before a load reads its weights; may block, may throw. `onProgress` false: the load is given up. */
  onLoad(modelId: string, onProgress: (fraction: number) => boolean): void;
  /** Before each decode call; may never return. `nan`: the logits of this call become NaN. */
  onStep(modelId: string): 'nan' | null;
}
