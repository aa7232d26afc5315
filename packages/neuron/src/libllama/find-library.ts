/**
 * Which directory holds libllama. The prebuilt libraries come from npm, one package per platform and GPU kind
 * (`@node-llama-cpp/<platform>[-cuda|-vulkan]`); only those built for this machine can be installed, so a
 * package that resolves is a package to use. An own build is a directory given by the operator.
 */
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';

export type LibraryVariant = 'cuda' | 'vulkan' | 'metal' | 'cpu';

export interface LibraryFiles {
  /** The npm package, or null for an own build. */
  readonly packageName: string | null;
  /** null for an own build: its devices tell. */
  readonly variant: LibraryVariant | null;
  readonly directory: string;
  /** Where a second set of GPU backends lies, for drivers that the first set does not suit; null = none. */
  readonly fallbackDirectory: string | null;
  readonly ggmlBase: string;
  readonly ggml: string;
  readonly llama: string;
}

export interface FindLibraryOptions {
  /** A directory with libllama, libggml and libggml-base; it wins over every package. */
  readonly libraryDir?: string | undefined;
  /** Take this variant or fail; absent = the best one installed, GPUs first. */
  readonly variant?: LibraryVariant | undefined;
  /**
   * Whether this machine has an NVIDIA GPU; without one other GPU builds come before CUDA. Absent = not
   * known.
   */
  readonly hasNvidia?: boolean | undefined;
  readonly platform?: NodeJS.Platform;
  readonly arch?: string;
  /** Directory of an installed package, null when it is not installed. */
  readonly resolvePackage?: (name: string) => string | null;
}

/** In order of preference; the plain package of a Mac with Apple silicon is the Metal one. */
const packagesByPlatform: Readonly<Record<string, readonly (readonly [string, LibraryVariant])[]>> = {
  'linux-x64': [
    ['linux-x64-cuda', 'cuda'],
    ['linux-x64-vulkan', 'vulkan'],
    ['linux-x64', 'cpu'],
  ],
  'linux-arm64': [['linux-arm64', 'cpu']],
  'linux-arm': [['linux-armv7l', 'cpu']],
  'darwin-arm64': [['mac-arm64-metal', 'metal']],
  'darwin-x64': [['mac-x64', 'cpu']],
  'win32-x64': [
    ['win-x64-cuda', 'cuda'],
    ['win-x64-vulkan', 'vulkan'],
    ['win-x64', 'cpu'],
  ],
  'win32-arm64': [['win-arm64', 'cpu']],
};

/**
 * The library to load.
 * Errors: `load_failed`, naming the npm package to install or the file that is missing.
 */
export function findLibrary(options: FindLibraryOptions = {}): LibraryFiles {
  if (options.libraryDir !== undefined) return filesIn(options.libraryDir, recognise(options));
  const platform = `${options.platform ?? process.platform}-${options.arch ?? process.arch}`;
  const all = packagesByPlatform[platform] ?? [];
  const wanted = all.filter(([, kind]) => options.variant === undefined || kind === options.variant);
  const isLast = ([, kind]: readonly [string, LibraryVariant]): boolean =>
    kind === 'cuda' && options.hasNvidia === false;
  const candidates = [...wanted.filter((each) => !isLast(each)), ...wanted.filter(isLast)];
  if (candidates.length === 0) throw unsupported(platform, options.variant, all);
  const resolvePackage = options.resolvePackage ?? installedPackage;
  for (const [shortName, variant] of candidates) {
    const packageName = `@node-llama-cpp/${shortName}`;
    const root = resolvePackage(packageName);
    if (root === null) continue;
    const fallbackDirectory = fallbackOf(shortName, variant, root, resolvePackage);
    return filesIn(join(root, 'bins', shortName), { packageName, variant, fallbackDirectory });
  }
  throw missing(candidates);
}

/**
 * A directory that is one of the npm packages' own keeps what is known of the package: an owner is told the
 * directory that the daemon chose.
 */
function recognise({
  libraryDir = '',
  resolvePackage = installedPackage,
}: FindLibraryOptions): Pick<LibraryFiles, 'packageName' | 'variant' | 'fallbackDirectory'> {
  const name = /@node-llama-cpp[\\/]([\w-]+)[\\/]bins[\\/]([\w-]+)[\\/]?$/.exec(libraryDir);
  const known = Object.values(packagesByPlatform)
    .flat()
    .find(([shortName]) => name !== null && shortName === name[1] && shortName === name[2]);
  if (known === undefined) return { packageName: null, variant: null, fallbackDirectory: null };
  const [shortName, variant] = known;
  const packageName = `@node-llama-cpp/${shortName}`;
  const fallbackDirectory = fallbackOf(shortName, variant, join(libraryDir, '..', '..'), resolvePackage);
  return { packageName, variant, fallbackDirectory };
}

/** Where node-llama-cpp keeps GPU backends for other drivers; null = nowhere. */
function fallbackOf(
  shortName: string,
  variant: LibraryVariant,
  root: string,
  resolvePackage: (name: string) => string | null,
): string | null {
  const extension = variant === 'cuda' ? resolvePackage(`@node-llama-cpp/${shortName}-ext`) : null;
  const fallback = join(extension ?? root, 'bins', shortName, 'fallback');
  return existsSync(fallback) ? fallback : null;
}

/**
 * The three libraries by name: `libllama.so`, `libllama.v0.4.0.so`, `libllama.cuda.v0.4.0.so`,
 * `libllama.so.0`, `llama.dll`, `libllama.metal.v0.4.0.dylib`.
 */
function filesIn(
  directory: string,
  found: Pick<LibraryFiles, 'packageName' | 'variant' | 'fallbackDirectory'>,
): LibraryFiles {
  if (!existsSync(directory)) {
    throw new AppError('load_failed', `the directory ${directory} with libllama does not exist`);
  }
  const names = readdirSync(directory).sort();
  const pathOf = (library: string): string => {
    const version = '(\\.v?\\d[\\w.-]*)?';
    const variant = '(\\.(cuda|vulkan|metal))?';
    const pattern = new RegExp(`^(lib)?${library}${variant}${version}\\.(so|dylib|dll)(\\.\\d[\\d.]*)?$`);
    const name = names.find((candidate) => pattern.test(candidate));
    if (name === undefined) {
      throw new AppError(
        'load_failed',
        `no ${library} library in ${directory}; build llama.cpp with shared libraries, ` +
          'or unset NEURON_LIBLLAMA_DIR',
      );
    }
    return join(directory, name);
  };
  return { ...found, directory, ggmlBase: pathOf('ggml-base'), ggml: pathOf('ggml'), llama: pathOf('llama') };
}

function installedPackage(name: string): string | null {
  try {
    // The packages export only "." (dist/index.js); their libraries lie in bins/ beside dist/.
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch {
    return null;
  }
}

function missing(candidates: readonly (readonly [string, LibraryVariant])[]): AppError {
  const names = candidates.map(([shortName]) => `@node-llama-cpp/${shortName}`);
  return new AppError(
    'load_failed',
    `libllama is not installed: run "npm install ${names.at(-1)}@3.21.1"` +
      (names.length > 1 ? `, or for a GPU ${names.slice(0, -1).join(' or ')}` : ''),
  );
}

function unsupported(
  platform: string,
  variant: LibraryVariant | undefined,
  all: readonly (readonly [string, LibraryVariant])[],
): AppError {
  return new AppError(
    'load_failed',
    variant === undefined || all.length === 0
      ? `no prebuilt libllama for ${platform}; build llama.cpp v0.4.0 and set NEURON_LIBLLAMA_DIR`
      : `no ${variant} build of libllama for ${platform}; there is ${all.map(([, kind]) => kind).join(', ')}`,
  );
}
