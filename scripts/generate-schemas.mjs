// Writes config/schema/*.schema.json from the zod types of cortex-core.
//   npx tsc -b packages/cortex-core             first
//   node scripts/generate-schemas.mjs           write them
//   node scripts/generate-schemas.mjs --check   exit 1 when a committed one is out of date
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { configSchemas, toSchemaFile } from '../packages/cortex-core/dist/config/json-schema.js';

const folder = new URL('../config/schema/', import.meta.url);
const isCheck = process.argv.includes('--check');
let outOfDate = 0;

mkdirSync(folder, { recursive: true });
for (const kind of Object.keys(configSchemas)) {
  const name = `${kind}.schema.json`;
  const wanted = toSchemaFile(kind);
  if (readOrEmpty(new URL(name, folder)) === wanted) continue;
  outOfDate++;
  if (isCheck) console.error(`config/schema/${name} is out of date; run: node scripts/generate-schemas.mjs`);
  else {
    writeFileSync(new URL(name, folder), wanted);
    console.log(`wrote config/schema/${name}`);
  }
}
process.exitCode = isCheck && outOfDate > 0 ? 1 : 0;

function readOrEmpty(url) {
  try {
    return readFileSync(url, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}
