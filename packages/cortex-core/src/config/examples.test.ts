import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'smol-toml';
import {
  configSchemas,
  type JsonSchema,
  listKeyPaths,
  schemasAt,
  toJsonSchema,
  toSchemaFile,
} from './json-schema.ts';
import { type ConfigKind, loadConfig } from './load.ts';

const root = new URL('../../../../config/', import.meta.url);
const folder = mkdtempSync(join(tmpdir(), 'cortex-examples-'));
after(() => rmSync(folder, { recursive: true }));

for (const kind of Object.keys(configSchemas) as ConfigKind[]) {
  const path = fileURLToPath(new URL(`${kind}.example.toml`, root));
  const text = readFileSync(path, 'utf8');
  // "#key = 1" and "#[table]" are settings, "# words" is prose.
  const complete = text.replace(/^#(?=["[A-Za-z_])/gm, '');
  const schema = toJsonSchema(kind);

  test(`${kind}.example.toml is valid and names its schema`, () => {
    loadConfig(kind, { path });
    assert.ok(text.startsWith(`#:schema ./schema/${kind}.schema.json\n`));
  });

  test(`${kind}.example.toml is valid with every setting in use`, () => {
    const file = join(folder, `${kind}.toml`);
    writeFileSync(file, complete);
    loadConfig(kind, { path: file });
  });

  test(`${kind}.example.toml has every key of the schema`, () => {
    const present = new Set<string>();
    collectKeys(parse(complete), [schema], '', present);
    const wanted = listKeyPaths(schema).map((key) => key.join('.'));
    assert.ok(wanted.length > 5);
    assert.deepEqual(
      wanted.filter((key) => !present.has(key)),
      [],
    );
  });

  test(`${kind}.example.toml shows the defaults as they are`, () => {
    const values = parse(complete);
    for (const key of listKeyPaths(schema)) {
      const shown = key.reduce<unknown>((value, name) => (value as Record<string, unknown>)?.[name], values);
      const [node] = schemasAt(schema, key);
      if (shown === undefined || typeof (node?.default ?? {}) === 'object') continue;
      assert.deepEqual(shown, node?.default, key.join('.'));
    }
  });

  test(`${kind}.schema.json is what the types say, and describes every key`, () => {
    const committed = readFileSync(new URL(`schema/${kind}.schema.json`, root), 'utf8');
    assert.equal(committed, toSchemaFile(kind), 'out of date; run: node scripts/generate-schemas.mjs');
    assert.deepEqual(JSON.parse(committed), schema);
    const isDescribed = (key: readonly string[]) => schemasAt(schema, key).some((node) => node.description);
    const keys = listKeyPaths(schema).filter((key) => schemasAt(schema, key).length > 0);
    // The variants of a union carry none of their own.
    assert.deepEqual(
      keys.filter((key) => !isDescribed(key)).map(String),
      keys.map(String).filter((key) => ['engine,context', 'engine,slots'].includes(key)),
    );
  });
}

function collectKeys(value: unknown, nodes: readonly JsonSchema[], prefix: string, found: Set<string>): void {
  if (Array.isArray(value)) {
    const items = nodes.flatMap((node) => schemasAt(node, [0]));
    for (const each of value) collectKeys(each, items, prefix, found);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  for (const [name, child] of Object.entries(value)) {
    const isKnown = nodes.some((node) => Object.hasOwn(node.properties ?? {}, name));
    const path = `${prefix}${isKnown ? name : '*'}`;
    found.add(path);
    collectKeys(
      child,
      nodes.flatMap((node) => schemasAt(node, [name])),
      `${path}.`,
      found,
    );
  }
}
