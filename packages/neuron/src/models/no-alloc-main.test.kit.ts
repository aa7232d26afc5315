/**
 * Run as a program: opens each model of its argument as the engine would, allocating nothing, with libllama's log
 * on stderr. Its own process, because the log goes past JavaScript.
 */
import { writeSync } from 'node:fs';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { createMtpContext } from '../engine/mtp-context.ts';
import { openModel } from '../engine/open-model.ts';
import { loadLibrary } from '../libllama/load-library.ts';

export interface NoAllocJob {
  readonly spec: LoadSpec;
  readonly fullWindow: boolean;
}

const library = loadLibrary({ nativeLog: true });
const { api } = library;

for (const { spec, fullWindow } of JSON.parse(process.argv[2] ?? '[]') as NoAllocJob[]) {
  const llama_context_default_params = () => ({
    ...api.llama_context_default_params(),
    swa_full: fullWindow,
  });
  const opened = openModel({ ...library, api: { ...api, llama_context_default_params } }, spec, () => true, {
    noAlloc: true,
  });
  const prediction = spec.speculation === 'mtp' ? createMtpContext(api, opened, spec) : null;
  writeSync(2, `\n@size ${Number(api.llama_model_size(opened.model))}\n@end\n`);
  if (prediction !== null) api.llama_free(prediction);
  api.llama_free(opened.context);
  api.llama_model_free(opened.model);
}
