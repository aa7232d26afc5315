/** Where tests make native work go wrong (NEURON_FAULT); absent in normal life. */
export interface EngineFaults {
  /** Before the weights of a load are read; may block, may throw. */
  onLoad(modelId: string): void;
  /** Before each decode call; may never return. `nan`: the logits of this call become NaN. */
  onStep(modelId: string): 'nan' | null;
}
