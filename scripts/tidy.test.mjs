import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkAll, importTable, listFiles } from './tidy.mjs';
import { toFunctions, toTokens } from './tidy-tokens.mjs';

/** A tree that keeps every rule: one file for each row of the import table. */
function cleanTree() {
  const files = new Map();
  for (const row of Object.keys(importTable)) {
    const [name, ...rest] = row.split('/');
    const inside = rest.join('/');
    const path = inside.endsWith('.ts') ? inside : inside === '' ? 'part.ts' : `${inside}/part.ts`;
    files.set(`packages/${name}/src/${path}`, 'export const part = 1;\n');
  }
  return files;
}

function rulesOf(path, text) {
  return checkAll(cleanTree().set(path, text)).map((fault) => `${fault.path}:${fault.line} ${fault.rule}`);
}

function assertFault(path, text, line, rule) {
  assert.deepEqual(rulesOf(path, text), [`${path}:${line} ${rule}`]);
}

function assertClean(path, text) {
  assert.deepEqual(rulesOf(path, text), []);
}

const sized = (lines) => `export function long(): void {\n${'  work();\n'.repeat(lines - 2)}}\n`;

test('tidy finds nothing in a tree that keeps the rules', () => {
  assert.deepEqual(checkAll(cleanTree()), []);
});

test('tidy fails when it saw no files', () => {
  assert.ok(checkAll(new Map()).some((fault) => fault.rule === 'no-files'));
  assert.ok(checkAll(new Map([['README.md', '']])).some((fault) => fault.rule === 'no-files'));
});

test('tidy sees this repository', () => {
  const files = listFiles(new URL('..', import.meta.url).pathname);
  assert.ok(files.has('scripts/tidy.mjs') && files.has('packages/cortex-core/src/wire/errors.ts'));
});

const forbidden = [
  ['cortex-core/src/wire/a.ts', '../daemon/clock.ts'],
  ['cortex-core/src/wire/a.ts', 'node:fs'],
  ['cortex-gateway/src/decide/route.ts', '../fleet/fleet.ts'],
  ['cortex-gateway/src/decide/route.ts', 'cortex-core/daemon/clock'],
  ['cortex-gateway/src/dialects/a.ts', 'node:net'],
  ['cortex-gateway/src/quota/a.ts', '../fleet/fleet.ts'],
  ['cortex-gateway/src/upstream/a.ts', '../fleet/fleet.ts'],
  ['cortex-gateway/src/http/a.ts', '../gateway.ts'],
  ['cortex-gateway/src/http/a.ts', '../decide/route.ts'],
  ['cortex-gateway/src/gateway.ts', 'neuron/neuron'],
  ['neuron/src/device/device.ts', '../engine/batch.ts'],
  ['neuron/src/device/device.ts', './owner/slab.ts'],
  ['neuron/src/api/a.ts', '../device/owner/slab.ts'],
  ['neuron/src/api/a.ts', '../engine/batch.ts'],
  ['neuron/src/device/owner/a.ts', '../device.ts'],
  ['neuron/src/models/a.ts', '../libllama/load.ts'],
  ['neuron/src/engine/a.ts', 'cortex-core/daemon/log'],
  ['cortex-cli/src/a.ts', 'neuron/device/device'],
  ['testkit/src/a.ts', 'neuron/neuron'],
  ['cortex-core/src/daemon/a.ts', 'testkit/clock'],
  ['cortex-core/src/daemon/a.ts', '../../../neuron/src/neuron.ts'],
  ['cortex-gateway/src/decide/a.test.ts', 'neuron/neuron'],
];
for (const [path, specifier] of forbidden) {
  test(`tidy forbids ${path} to import ${specifier}`, () => {
    const file = `packages/${path}`;
    assertFault(file, `// a\nimport { x } from '${specifier}';\n`, 2, 'import');
  });
}

const allowed = [
  ['cortex-core/src/wire/openai/a.ts', '../errors.ts'],
  ['cortex-core/src/daemon/a.ts', 'node:http'],
  ['cortex-core/src/daemon/a.ts', '../../package.json'],
  ['cortex-gateway/src/gateway.ts', './fleet/poller.ts'],
  ['cortex-gateway/src/fleet/a.ts', '../decide/route.ts'],
  ['cortex-gateway/src/decide/a.ts', 'cortex-core/wire/neuron'],
  ['cortex-gateway/src/decide/a.test.ts', '../fleet/view.ts'],
  ['cortex-gateway/src/decide/a.test.ts', 'testkit/clock'],
  ['cortex-gateway/src/upstream/a.ts', 'undici'],
  ['neuron/src/neuron.ts', './device/thread-transport.ts'],
  ['neuron/src/device/discovery.ts', './thread-transport.ts'],
  ['neuron/src/device/thread-transport.ts', '../engine/batch.ts'],
  ['neuron/src/device/owner/slab-main.ts', '../jobs.ts'],
  ['neuron/src/device/owner/slab.ts', '../../engine/batch.ts'],
  ['neuron/src/engine/a.ts', '../libllama/load.ts'],
  ['cortex-cli/src/a.ts', 'cortex-gateway/gateway'],
  ['e2e/src/a.ts', 'neuron/device/device'],
];
for (const [path, specifier] of allowed) {
  test(`tidy allows ${path} to import ${specifier}`, () => {
    assertClean(`packages/${path}`, `import { x } from '${specifier}';\n`);
  });
}

test('tidy sees side-effect, type, dynamic and re-exporting imports, and no import in a comment or string', () => {
  const path = 'packages/cortex-gateway/src/decide/a.ts';
  const fleet = "'../fleet/fleet.ts'";
  assertFault(path, `import ${fleet};\n`, 1, 'import');
  assertFault(path, `import type { F } from ${fleet};\n`, 1, 'import');
  assertFault(path, `export * from ${fleet};\n`, 1, 'import');
  assertFault(path, `export const f = () => import(${fleet});\n`, 1, 'import');
  assertClean(path, `// import ${fleet};\nexport const s = "import ${fleet};";\n`);
});

test('tidy asks a row for each folder', () => {
  assertFault('packages/neuron/src/novelty/a.ts', '', 1, 'no-row');
  assertFault('packages/neuron/src/stray.ts', '', 1, 'no-row');
});

test('tidy asks a folder for each row', () => {
  const files = cleanTree();
  files.delete('packages/neuron/src/libllama/part.ts');
  assert.deepEqual(
    checkAll(files).map((fault) => fault.rule),
    ['row-gone'],
  );
});

test('tidy limits files, functions and lines, but not those of tests and generated files', () => {
  const path = 'packages/e2e/src/a.ts';
  assertClean(path, '// a\n'.repeat(400));
  assertFault(path, '// a\n'.repeat(401), 401, 'file-length');
  assertFault(path, `\n//${'a'.repeat(109)}\n`, 2, 'line-length');
  assertClean(path, sized(70));
  assertFault(path, `\n${sized(71)}`, 2, 'function-length');
  assertFault('scripts/a.mjs', sized(71), 1, 'function-length');
  for (const exempt of ['packages/e2e/src/a.test.ts', 'packages/e2e/src/a.gen.ts']) {
    assertClean(exempt, `//${'a'.repeat(200)}\n${sized(500)}`);
  }
});

const hole = '$' + '{';
const shapes = [
  ['function f(a = {}): void {\n}', [[1, 2]]],
  ['const f = async (a: number): Promise<Map<string, { b: number }>> => {\n};', [[1, 2]]],
  ['const f = (a) => ({\n b: 1 });', [[1, 2]]],
  ['const f = a => {\n};', [[1, 2]]],
  ['class A<T> extends B<T> {\n  get x(): { y: number } {\n    return 1;\n  }\n}', [[2, 4]]],
  ['class A {\n  async *m(\n    a: number,\n  ): AsyncGenerator<A> {\n  }\n}', [[2, 5]]],
  ['function isA(x: unknown): x is A {\n}', [[1, 2]]],
  ['if (a) {\n} else {\n}\nfor await (const x of y) {\n}\nswitch (a) {\n case f(a): {\n}\n}', []],
  ['interface A {\n m(): void;\n}\ntype B = {\n};\nconst c = x ? f(x) : {\n};', []],
  [
    `const s = "() => {";\nconst t = \`() => { ${hole}u(\`}\`)} {\`;\nconst r = /[/{]=> \\{/;\n// () => {`,
    [],
  ],
  [`const t = \`${hole}a.map((x) => {\n  return \`{\`;\n})}\`;`, [[1, 3]]],
];
for (const [code, expected] of shapes) {
  test(`toFunctions() measures ${JSON.stringify(code.slice(0, 50))}`, () => {
    assert.deepEqual(
      toFunctions(toTokens(code)).map(({ start, end }) => [start, end]),
      expected,
    );
  });
}

test('tidy wants kebab-case names that say something', () => {
  assertFault('packages/e2e/src/fooBar.ts', '', 1, 'kebab-case');
  assertFault('packages/e2e/src/Foo/bar.ts', '', 1, 'kebab-case');
  for (const name of ['utils.ts', 'string-utils.ts', 'helpers/a.ts', 'common.ts', 'slot-manager.ts']) {
    assertFault(`packages/e2e/src/${name}`, '', 1, 'vague-name');
  }
  assertClean('packages/e2e/src/commonwealth-main.test.ts', '');
  assertClean('packages/e2e/src/DESIGN.md', '');
});

test('tidy wants named exports, and no enum or namespace', () => {
  const path = 'packages/e2e/src/a.ts';
  assertFault(path, '\nexport default 1;\n', 2, 'named-exports');
  assertFault(path, 'const a = 1;\nexport { a as default };\n', 2, 'named-exports');
  assertFault(path, 'export enum A {\n}\n', 1, 'no-enum');
  assertFault(path, 'const enum A {\n}\n', 1, 'no-enum');
  assertFault(path, 'namespace A {\n}\n', 1, 'no-namespace');
  assertFault(path, 'declare module A.B {\n}\n', 1, 'no-namespace');
  assertClean(
    path,
    "import { default as a } from 'koffi';\nz.enum(['a']); const s = { enum: 1, namespace: 2 };\n",
  );
});

test('tidy wants tests that do not sleep', () => {
  const path = 'packages/e2e/src/a.test.ts';
  assertFault(path, `\nawait ${'sleep'}(100);\n`, 2, 'no-sleep');
  assertFault(path, 'await setTimeout(100);\n', 1, 'no-sleep');
  assertFault(path, 'await new Promise((resolve) => setTimeout(resolve, 9));\n', 1, 'no-sleep');
  assertClean(path, 'await clock.sleep(100);\nconst timer = setTimeout(() => fail(), 1000);\n');
});

test('tidy wants a lock file without registry hosts and files without local paths', () => {
  const entry = '  "resolved": "https://registry.example/a.tgz",';
  assertFault('package-lock.json', `{\n${entry}\n}\n`, 2, 'lock-host');
  const local = `/${'work'}/`;
  assertFault('docs/deploy.md', `a\ncd ${local}main\n`, 2, 'local-path');
  assertFault('packages/e2e/src/a.ts', `export const a = '${local}x';\n`, 1, 'local-path');
  assertClean('docs/deploy.md', `https://example.com${local}x and ./a${local}b\n`);
});
