import { existsSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Weights that do not ship with the repository, from the folder that CORTEX_TEST_MODELS names. `skip` goes
 * into a test's options: the reason to report, or false when the file is there.
 */
export function testModel(name: string): { readonly file: string; readonly skip: string | false } {
  const folder = process.env.CORTEX_TEST_MODELS;
  if (folder === undefined) return { file: '', skip: `set CORTEX_TEST_MODELS to a folder with ${name}` };
  const file = join(folder, name);
  return { file, skip: existsSync(file) ? false : `CORTEX_TEST_MODELS has no ${name}` };
}
