import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { expectedVersion, prototypes } from './bindings.gen.ts';
import { findLibrary } from './find-library.ts';
import { checkLibrary, listDevices, loadLibrary } from './load-library.ts';

const scratch = mkdtempSync(join(tmpdir(), 'cortex-libllama-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

test('loadLibrary() opens the pinned version with every generated function, twice too', () => {
  for (let round = 0; round < 2; round++) {
    const { api, version } = loadLibrary({ nativeLog: false, variant: 'cpu' });
    assert.ok(version.startsWith(expectedVersion), version);
    assert.ok(Object.keys(prototypes).every((name) => typeof api[name as keyof typeof api] === 'function'));
    assert.ok(listDevices(api).some((device) => device.kind === 'cpu'));
  }
});

test('loadLibrary() takes a directory of its own, as NEURON_LIBLLAMA_DIR gives', () => {
  const { directory, packageName } = findLibrary({ variant: 'cpu' });
  // One of the packages' own directories keeps its name.
  assert.equal(loadLibrary({ libraryDir: directory, nativeLog: false }).files.packageName, packageName);
  const own = join(scratch, 'own');
  symlinkSync(directory, own);
  assert.equal(loadLibrary({ libraryDir: own, nativeLog: false }).files.packageName, null);
});

test('findLibrary() prefers cuda, then vulkan, then the CPU, and says what to install', () => {
  const only =
    (...names: string[]) =>
    (name: string) =>
      names.includes(name) ? scratch : null;
  const linux = { platform: 'linux', arch: 'x64' } as const;
  // The empty directory is then found to lack the libraries: the message shows which package was chosen.
  const chosen = (resolvePackage: (name: string) => string | null) =>
    messageOf(() => findLibrary({ ...linux, resolvePackage }));
  const all = [
    '@node-llama-cpp/linux-x64',
    '@node-llama-cpp/linux-x64-vulkan',
    '@node-llama-cpp/linux-x64-cuda',
  ];
  assert.match(chosen(only(...all)), /bins\/linux-x64-cuda /);
  assert.match(chosen(only(all[0]!, all[1]!)), /bins\/linux-x64-vulkan /);
  assert.match(chosen(only(all[0]!)), /bins\/linux-x64 /);
  // Without an NVIDIA GPU, CUDA is the last choice.
  const withoutNvidia = { ...linux, hasNvidia: false };
  const otherwise = (...names: string[]) =>
    messageOf(() => findLibrary({ ...withoutNvidia, resolvePackage: only(...names) }));
  assert.match(otherwise(...all), /bins\/linux-x64-vulkan /);
  assert.match(otherwise(all[2]!), /bins\/linux-x64-cuda /);
  assert.match(chosen(only()), /npm install @node-llama-cpp\/linux-x64@/);
  const macs = messageOf(() =>
    findLibrary({ platform: 'darwin', arch: 'arm64', resolvePackage: () => null }),
  );
  assert.match(macs, /@node-llama-cpp\/mac-arm64-metal/);
  const windows = messageOf(() =>
    findLibrary({ platform: 'win32', arch: 'x64', resolvePackage: () => null }),
  );
  assert.match(windows, /@node-llama-cpp\/win-x64@.*win-x64-cuda/);
  assert.match(
    messageOf(() => findLibrary({ platform: 'aix', arch: 'ppc64' })),
    /NEURON_LIBLLAMA_DIR/,
  );
  assert.match(
    messageOf(() => findLibrary({ ...linux, variant: 'metal' })),
    /no metal build/,
  );
});

test('findLibrary() knows the names of every platform and of own builds', () => {
  for (const names of [
    [
      'libggml-base.so',
      'libggml.v0.4.0.so',
      'libllama.v0.4.0.so',
      'libllama-common.so',
      'libggml-cpu-x64.so',
    ],
    ['libggml-base.so.0', 'libggml.so.0.4.0', 'libllama.so.0'],
    ['libggml-base.dylib', 'libggml.dylib', 'libllama.0.dylib'],
    ['ggml-base.dll', 'ggml.v0.4.0.dll', 'llama.dll'],
  ]) {
    const directory = mkdtempSync(join(scratch, 'names-'));
    for (const name of names) writeFileSync(join(directory, name), '');
    const files = findLibrary({ libraryDir: directory });
    assert.deepEqual(
      [files.ggmlBase, files.ggml, files.llama],
      names.slice(0, 3).map((name) => join(directory, name)),
    );
  }
});

test('another version or another default is an error that names both', () => {
  const { api, files } = loadLibrary({ nativeLog: false, variant: 'cpu' });
  const other = { ...api, llama_version: () => '0.5.0' };
  assert.match(
    messageOf(() => checkLibrary(other, files)),
    /llama_version\(\) should be 0\.4\.0, found 0\.5\.0/,
  );
  const moved = {
    ...api,
    llama_context_default_params: () => ({ ...api.llama_context_default_params(), n_ubatch: 7 }),
  };
  assert.match(
    messageOf(() => checkLibrary(moved, files)),
    /n_ubatch should be 512, found 7/,
  );
});

test('a library that is none, or a directory without one, is a clear error', () => {
  const directory = mkdtempSync(join(scratch, 'bad-'));
  assert.match(
    messageOf(() => loadLibrary({ libraryDir: join(directory, 'gone') })),
    /does not exist/,
  );
  assert.match(
    messageOf(() => loadLibrary({ libraryDir: directory })),
    /no ggml-base library/,
  );
  for (const name of ['libggml-base.so', 'libggml.so', 'libllama.so'])
    writeFileSync(join(directory, name), 'x');
  assert.match(
    messageOf(() => loadLibrary({ libraryDir: directory })),
    /cannot open/,
  );
});

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, 'load_failed');
    return error.message;
  }
  return assert.fail('did not throw');
}

test('findLibrary() knows the names of the libraries in every package and in own builds', () => {
  const own = join(scratch, 'names');
  for (const [base, rest] of [
    ['libggml-base.so', ['libggml.cuda.v0.4.0.so', 'libllama.cuda.v0.4.0.so']],
    ['libggml-base.so', ['libggml.vulkan.v0.4.0.so', 'libllama.vulkan.v0.4.0.so']],
    ['libggml-base.so', ['libggml.v0.4.0.so', 'libllama.v0.4.0.so']],
    ['libggml-base.dylib', ['libggml.metal.v0.4.0.dylib', 'libllama.metal.v0.4.0.dylib']],
    ['ggml-base.dll', ['ggml.cuda.v0.4.0.dll', 'llama.cuda.v0.4.0.dll']],
    ['libggml-base.so.0', ['libggml.so.0.9.4', 'libllama.so.0']],
  ] as const) {
    rmSync(own, { recursive: true, force: true });
    mkdirSync(own);
    const others = ['libllama-common.so', 'libggml-cuda.so', 'libggml-cpu-zen4.so', 'llama-addon.node'];
    for (const name of [base, ...rest, ...others]) writeFileSync(join(own, name), '');
    const { ggmlBase, ggml, llama } = findLibrary({ libraryDir: own });
    assert.deepEqual(
      [ggmlBase, ggml, llama],
      [base, ...rest].map((name) => join(own, name)),
    );
  }
});

test('an owner that is told the directory of the CUDA package finds its fallback backends', () => {
  const bins = join(scratch, 'node_modules', '@node-llama-cpp', 'linux-x64-cuda', 'bins', 'linux-x64-cuda');
  const extension = join(scratch, 'ext');
  mkdirSync(bins, { recursive: true });
  mkdirSync(join(extension, 'bins', 'linux-x64-cuda', 'fallback'), { recursive: true });
  for (const name of ['llama', 'ggml', 'ggml-base']) writeFileSync(join(bins, `lib${name}.so`), '');
  const resolvePackage = (name: string) => (name.endsWith('-ext') ? extension : null);
  const files = findLibrary({ libraryDir: bins, resolvePackage });
  assert.deepEqual(
    [files.packageName, files.variant, files.fallbackDirectory],
    ['@node-llama-cpp/linux-x64-cuda', 'cuda', join(extension, 'bins', 'linux-x64-cuda', 'fallback')],
  );
});
