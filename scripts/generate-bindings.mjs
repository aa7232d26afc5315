/**
 * llama.h -> packages/neuron/src/libllama/bindings.gen.ts
 *
 * Problem: libllama is called through FFI. A struct that gained a field, or an enum that moved, corrupts
 * memory silently. So nothing about the C API is typed by hand: layouts, enums, prototypes and the expected
 * default parameters are read from the headers of exactly the llama.cpp release that the prebuilt libraries
 * are made of.
 *
 * Design: a small parser of the C subset that these headers use (no macros in declarations, one declarator
 * per field, no bit fields). What it cannot express (unions, fixed arrays, callbacks by value) is listed in
 * the output, never guessed. Layouts assume a 64-bit ABI without `long` in the structs: the same on every
 * platform we support.
 *
 * Usage: node scripts/generate-bindings.mjs [path of a llama.cpp checkout] [--check]
 *   Without a path it runs `npm pack node-llama-cpp@<pinned>` and clones llama/gitRelease.bundle out of it.
 *   --check writes nothing and exits 1 when the committed file differs.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const pinned = { nodeLlamaCpp: '3.21.1', llamaCpp: 'v0.4.0' };
const outputFile = fileURLToPath(new URL('../packages/neuron/src/libllama/bindings.gen.ts', import.meta.url));

/** ggml enums and structs that llama.h or the engine refer to. */
const ggmlEnums = ['ggml_type', 'ggml_backend_dev_type', 'ggml_numa_strategy', 'ggml_log_level'];
const ggmlFunctions = [
  'ggml_backend_load_all_from_path',
  'ggml_backend_dev_count',
  'ggml_backend_dev_get',
  'ggml_backend_dev_name',
  'ggml_backend_dev_description',
  'ggml_backend_dev_memory',
  'ggml_backend_dev_type',
  'ggml_backend_dev_backend_reg',
  'ggml_backend_reg_get_proc_address',
  'ggml_threadpool_params_init',
  'ggml_log_set',
  'ggml_type_size',
  'ggml_blck_size',
];

const scalars = {
  void: null,
  bool: ['bool', 1],
  char: ['char', 1],
  int8_t: ['int8', 1],
  uint8_t: ['uint8', 1],
  int: ['int32', 4],
  int32_t: ['int32', 4],
  uint32_t: ['uint32', 4],
  int64_t: ['int64', 8],
  uint64_t: ['uint64', 8],
  size_t: ['size_t', 8],
  float: ['float', 4],
  double: ['double', 8],
};

main();

function main() {
  const args = process.argv.slice(2);
  const isCheck = args.includes('--check');
  const given = args.find((arg) => !arg.startsWith('--'));
  const scratch = given === undefined ? mkdtempSync(join(tmpdir(), 'cortex-bindings-')) : null;
  try {
    const text = generate(given ?? fetchPinnedSource(scratch));
    if (!isCheck) {
      writeFileSync(outputFile, text);
      console.log(`wrote ${outputFile}`);
    } else if (readFileSync(outputFile, 'utf8') === text) {
      console.log('bindings.gen.ts is what the headers say');
    } else {
      console.error('bindings.gen.ts differs from the headers: run node scripts/generate-bindings.mjs');
      process.exitCode = 1;
    }
  } finally {
    if (scratch !== null) rmSync(scratch, { recursive: true, force: true });
  }
}

/** Directory of a llama.cpp checkout of the pinned release. */
function fetchPinnedSource(scratch) {
  const run = (command, ...args) => execFileSync(command, args, { cwd: scratch, encoding: 'utf8' });
  const tarball = run('npm', 'pack', '--silent', `node-llama-cpp@${pinned.nodeLlamaCpp}`).trim();
  run('tar', 'xzf', tarball);
  run(
    'git',
    '-c',
    'advice.detachedHead=false',
    'clone',
    '--quiet',
    'package/llama/gitRelease.bundle',
    'llama.cpp',
  );
  return join(scratch, 'llama.cpp');
}

function generate(checkout) {
  const read = (path) => readFileSync(join(checkout, path), 'utf8');
  const headers = ['ggml/include/ggml.h', 'ggml/include/ggml-cpu.h', 'ggml/include/ggml-backend.h'];
  const ggml = stripComments(headers.map(read).join('\n'));
  const llama = stripComments(read('include/llama.h'));
  const constants = { ...readDefines(ggml), ...readDefines(llama) };
  const enums = {
    ...pick(parseEnums(ggml, constants, ggmlEnums), ggmlEnums),
    ...parseEnums(llama, constants),
  };
  const types = { enums, typedefs: parseTypedefs(`${ggml}\n${llama}`), structs: {} };
  const skipped = [];
  for (const [name, body] of structBodies(llama)) {
    const layout = layOut(body, types);
    if (typeof layout === 'string') skipped.push(`struct ${name}: ${layout}`);
    else types.structs[name] = layout;
  }
  const functions = {};
  const ggmlDeclarations = declarations(ggml, 'GGML_API|GGML_BACKEND_API');
  for (const declaration of [
    ...declarations(llama, 'LLAMA_API'),
    ...ggmlDeclarations.filter((d) => ggmlFunctions.includes(d.name)),
  ]) {
    const prototype = toPrototype(declaration, types);
    if (typeof prototype === 'string') skipped.push(`${declaration.name}: ${prototype}`);
    else functions[declaration.name] = prototype;
  }
  for (const name of ggmlFunctions) {
    if (functions[name] === undefined) throw new Error(`${name} is not in the ggml headers any more`);
  }
  const defaults = {
    llama_model_params: parseDefaults(read('src/llama-model.cpp'), 'llama_model_params', types, constants),
    llama_context_params: parseDefaults(
      read('src/llama-context.cpp'),
      'llama_context_params',
      types,
      constants,
    ),
  };
  return render({ version: readVersion(read('CMakeLists.txt')), types, functions, defaults, skipped });
}

function stripComments(text) {
  return text.replace(/\/\*[\s\S]*?\*\//g, ' ').replace(/\/\/[^\n]*/g, '');
}

function readVersion(cmake) {
  const part = (name) => cmake.match(new RegExp(`set\\(LLAMA_VERSION_${name} (\\d+)\\)`))[1];
  return `${part('MAJOR')}.${part('MINOR')}.${part('PATCH')}`;
}

function readDefines(text) {
  const found = {};
  for (const [, name, value] of text.matchAll(
    /^\s*#\s*define\s+(\w+)\s+(-?(?:0x[0-9a-fA-F]+|\d+))u?\s*$/gm,
  )) {
    found[name] = Number(value);
  }
  return found;
}

function parseEnums(text, constants, wanted = null) {
  const enums = {};
  for (const [, name, body] of text.matchAll(/\benum\s+(\w+)\s*\{([^}]*)\}/g)) {
    if (wanted !== null && !wanted.includes(name)) continue;
    let next = 0;
    const values = {};
    for (const item of splitList(body.replace(/^\s*#.*$/gm, ''))) {
      const [key, expression] = item.split('=').map((part) => part.trim());
      next = expression === undefined ? next : evaluate(expression, { ...constants, ...values });
      values[key] = next++;
    }
    enums[name] = values;
  }
  return enums;
}

function evaluate(expression, known) {
  const shift = expression.match(/^(\d+)\s*<<\s*(\d+)$/);
  if (shift) return Number(shift[1]) << Number(shift[2]);
  if (expression in known) return known[expression];
  const value = Number(expression);
  if (Number.isNaN(value)) throw new Error(`cannot evaluate "${expression}"`);
  return value;
}

/** Typedefs of scalars, pointers and functions: name -> C type, where a function pointer is `void *`. */
function parseTypedefs(text) {
  const typedefs = {};
  for (const [, name] of text.matchAll(/\btypedef\s[^;{}()]*\(\s*\*\s*(\w+)\s*\)\s*\([^;]*\)\s*;/g)) {
    typedefs[name] = 'void *';
  }
  for (const [, type, name] of text.matchAll(/\btypedef\s+([^;{}()]*?[\s*])(\w+)\s*;/g)) {
    typedefs[name] ??= type.trim();
  }
  return typedefs;
}

function structBodies(text) {
  return [...text.matchAll(/\bstruct\s+(\w+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}/g)].map((m) => [m[1], m[2]]);
}

/** `{size, align, fields: [name, type, offset][]}`, or the reason why it cannot be expressed. */
function layOut(body, types) {
  if (/[{[]/.test(body)) return 'has a union or a fixed array';
  if (/\(\s*\*/.test(body)) return 'is a table of callbacks';
  let size = 0;
  let align = 1;
  const fields = [];
  for (const declaration of body.split(';').map((part) => part.trim())) {
    if (declaration === '') continue;
    const [, ctype, name] = declaration.match(/^([\s\S]*?[\s*])(\w+)$/);
    const type = resolveType(ctype, types);
    if (type === null || type.text === 'void') return `field ${name} has an unknown type "${ctype.trim()}"`;
    size = Math.ceil(size / type.align) * type.align;
    fields.push([name, type.isString ? 'pointer' : type.text, size]);
    size += type.size;
    align = Math.max(align, type.align);
  }
  return { size: Math.ceil(size / align) * align, align, fields };
}

function declarations(text, marker) {
  const flat = text.replace(/^\s*#.*$/gm, '');
  const undeprecated = flat.replace(/DEPRECATED\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*;/g, ';');
  const pattern = new RegExp(`\\b(?:${marker})\\s+([^;{}()]*?[\\s*])(\\w+)\\s*\\(([^;{}]*?)\\)\\s*;`, 'g');
  return [...undeprecated.matchAll(pattern)]
    .filter((m) => !m[0].includes('DEPRECATED'))
    .map(([, result, name, parameters]) => ({ result, name, parameters }));
}

function toPrototype({ result, parameters }, types) {
  const resultType = resolveType(result, types);
  if (resultType === null) return `unknown result type "${result.trim()}"`;
  const args = [];
  const list = splitList(parameters);
  for (const [index, parameter] of list.entries()) {
    if (parameter === 'void') continue;
    const match = parameter.match(/^([\s\S]*?[\s*])(\w+)$/);
    const type = match === null ? null : resolveType(match[1], types);
    if (type === null || /[[(]/.test(parameter)) return `cannot express the parameter "${parameter}"`;
    // Text whose length follows may hold NUL bytes: bytes, not a C string.
    const isCounted = type.isString && list[index + 1]?.endsWith(`${match[2]}_len`);
    args.push([match[2], isCounted ? 'pointer' : type.text]);
  }
  return { result: resultType.text, args };
}

/** `{text, size, align}` of a C type; text is a name of koffi, `str`, `pointer` or `struct <name>`. */
function resolveType(ctype, types) {
  const isConst = /\bconst\b/.test(ctype);
  const bare = ctype
    .replace(/\b(const|struct|enum|extern)\b/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  if (/^char ?\*$/.test(bare) && isConst) return { text: 'str', size: 8, align: 8, isString: true };
  if (bare.endsWith('*')) return { text: 'pointer', size: 8, align: 8 };
  if (bare === 'void') return { text: 'void', size: 0, align: 1 };
  if (scalars[bare] !== undefined)
    return { text: scalars[bare][0], size: scalars[bare][1], align: scalars[bare][1] };
  if (/\benum\b/.test(ctype) || types.enums[bare] !== undefined) return { text: 'int32', size: 4, align: 4 };
  const struct = types.structs[bare];
  if (struct !== undefined) return { text: `struct ${bare}`, size: struct.size, align: struct.align };
  const alias = types.typedefs[bare];
  return alias === undefined || alias === bare ? null : resolveType(alias, types);
}

/** The values of the commented initializer list in a default-params function, in field order. */
function parseDefaults(source, struct, types, constants) {
  const start = source.indexOf(`${struct} ${struct.replace('_params', '_default_params')}()`);
  const body = source.slice(start, source.indexOf('return result', start));
  const values = [...body.matchAll(/\/\*\.(\w+)\s*=\*\/\s*([^,\n]+),/g)].map((m) => m[2].trim());
  const { fields } = types.structs[struct];
  if (values.length !== fields.length)
    throw new Error(`${struct}: ${values.length} defaults, ${fields.length} fields`);
  const names = Object.assign({}, constants, ...Object.values(types.enums));
  return Object.fromEntries(
    fields.map(([name, type], index) => [name, toDefault(values[index], type, names)]),
  );
}

function toDefault(text, type, names) {
  if (type === 'pointer') return null;
  if (type === 'bool') return text === 'true';
  return text in names ? names[text] : Number(text.replace(/f$/, ''));
}

function splitList(text) {
  return text
    .split(',')
    .map((part) => part.replace(/\s+/g, ' ').trim())
    .filter((part) => part !== '');
}

function pick(all, names) {
  return Object.fromEntries(names.map((name) => [name, all[name]]));
}

function tsType(type) {
  if (type.startsWith('struct ')) return toPascal(type.slice(7));
  if (type === 'pointer') return 'Pointer';
  if (type === 'str') return 'string';
  if (type === 'bool' || type === 'void') return type === 'bool' ? 'boolean' : 'void';
  return ['int64', 'uint64', 'size_t'].includes(type) ? 'Integer' : 'number';
}

function toPascal(name) {
  return name.replace(/(?:^|_)(\w)/g, (_, letter) => letter.toUpperCase());
}

function render({ version, types, functions, defaults, skipped }) {
  const { nodeLlamaCpp, llamaCpp } = pinned;
  return [
    '// Generated by scripts/generate-bindings.mjs ' +
      `from llama.cpp ${llamaCpp} (node-llama-cpp ${nodeLlamaCpp}).`,
    '// Do not edit; CI runs the script with --check.',
    '',
    `export const pinnedRelease = { nodeLlamaCpp: '${nodeLlamaCpp}', llamaCpp: '${llamaCpp}' } as const;`,
    '',
    '/** llama_version() of a matching library starts with this; a suffix such as `-dev` may follow. */',
    `export const expectedVersion = '${version}';`,
    '',
    '/** An address; typed arrays may be passed where C reads or writes a buffer during the call. */',
    'export type Pointer = bigint | null | NodeJS.ArrayBufferView;',
    '/** koffi returns a bigint only beyond 2^53. */',
    'export type Integer = number | bigint;',
    '',
    ...Object.entries(types.enums).flatMap(renderEnum),
    ...Object.entries(types.structs).flatMap(renderInterface),
    '/** name -> size, alignment and [field, type, offset] in bytes on every 64-bit ABI. */',
    'export const structLayouts = {',
    ...Object.entries(types.structs).flatMap(renderLayout),
    '} as const;',
    '',
    '/** name -> [result, parameters]. */',
    'export const prototypes = {',
    ...Object.entries(functions).map(renderPrototype),
    '} as const;',
    '',
    'export interface LlamaApi {',
    ...Object.entries(functions).map(renderMethod),
    '}',
    '',
    '/** What the default-parameter functions of the pinned release return. */',
    'export const expectedDefaults = {',
    ...Object.entries(defaults).flatMap(renderDefaults),
    '} as const;',
    '',
    '// Not expressed:',
    ...skipped.map((line) => `//   ${line}`),
    '',
  ].join('\n');
}

function renderEnum([name, values]) {
  const lines = Object.entries(values).map(([key, value]) => `  ${key}: ${value},`);
  return [`export const ${toPascal(name)} = {`, ...lines, '} as const;', ''];
}

function renderInterface([name, { fields }]) {
  const lines = fields.map(([field, type]) => `  ${field}: ${tsType(type)};`);
  return [`export interface ${toPascal(name)} {`, ...lines, '}', ''];
}

function renderLayout([name, { size, align, fields }]) {
  const lines = fields.map(([field, type, offset]) => `      ['${field}', '${type}', ${offset}],`);
  return [
    `  ${name}: {`,
    `    size: ${size},`,
    `    align: ${align},`,
    '    fields: [',
    ...lines,
    '    ],',
    '  },',
  ];
}

function renderPrototype([name, { result, args }]) {
  return `  ${name}: ['${result}', [${args.map(([, type]) => `'${type}'`).join(', ')}]],`;
}

function renderMethod([name, { result, args }]) {
  const parameters = args.map(([arg, type]) => `${arg}: ${tsType(type)}`).join(', ');
  // A C string that is returned may be NULL.
  return `  ${name}(${parameters}): ${tsType(result)}${result === 'str' ? ' | null' : ''};`;
}

function renderDefaults([name, values]) {
  return [
    `  ${name}: {`,
    ...Object.entries(values).map(([field, value]) => `    ${field}: ${value},`),
    '  },',
  ];
}
