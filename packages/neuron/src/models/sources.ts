/** A model id -> files on this machine, fetched first where they are not here yet. */
import { stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, isAbsolute, join, resolve } from 'node:path';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { AppError } from 'cortex-core/wire/errors';
import { type CatalogueEntry, findByName, groupShards, scanDirs, scanHubCache } from './catalogue.ts';
import type { DownloadDeps } from './download.ts';
import { type FetchProgress, Hub } from './hub.ts';

export interface ResolvedModel {
  /** Absolute; all shards in order. */
  readonly files: readonly string[];
  /** SHA-256 of the first file; null when unknown. */
  readonly digest: string | null;
}

export interface ModelRequest {
  readonly modelId: string;
  readonly quant: string | null;
  /** A file that the configuration named; ids from the network never become paths. */
  readonly file: string | null;
}

type ModelsConfig = NeuronConfig['models'];

export class ModelSources {
  readonly #config: ModelsConfig;
  readonly #hubs = new Map<string, Hub>();

  constructor(config: ModelsConfig, deps: DownloadDeps, env: NodeJS.ProcessEnv) {
    this.#config = config;
    for (const [scheme, source] of Object.entries(config.sources)) {
      const authEnv = source.auth_env ?? null;
      const token = authEnv === null ? null : env[authEnv] || null;
      const cacheDir = resolve(source.cache_dir ?? config.hf_cache ?? defaultHubCache(env));
      this.#hubs.set(scheme, new Hub({ endpoint: source.endpoint, cacheDir, authEnv, token }, deps));
    }
  }

  async resolve(request: ModelRequest, onFetch: FetchProgress, signal: AbortSignal): Promise<ResolvedModel> {
    if (request.file !== null) return { files: await shardsOf(request.file), digest: null };
    const { modelId, quant } = request;
    const local = findByName(await scanDirs(this.#config.dirs), modelId, quant);
    if (local !== null) return { files: complete(modelId, local), digest: null };
    const { hub, repo, tag } = this.#toHub(modelId);
    return hub.fetchModel(repo, quant ?? tag, onFetch, signal);
  }

  /** Everything loadable without a network: id -> files. */
  async list(): Promise<ReadonlyMap<string, CatalogueEntry>> {
    const all = new Map<string, CatalogueEntry>();
    for (const [name, entry] of await scanDirs(this.#config.dirs)) if (entry.complete) all.set(name, entry);
    for (const [scheme, hub] of this.#hubs) {
      for (const [repo, entries] of await scanHubCache(hub.cacheDir)) {
        const prefix = scheme === this.#config.default_source ? '' : `${scheme}:`;
        for (const entry of entries) {
          if (!entry.complete) continue;
          const id = entries.length === 1 || entry.quant === null ? repo : `${repo}:${entry.quant}`;
          if (!all.has(`${prefix}${id}`)) all.set(`${prefix}${id}`, entry);
        }
      }
    }
    return all;
  }

  #toHub(modelId: string): { readonly hub: Hub; readonly repo: string; readonly tag: string | null } {
    const match = /^(?:([a-z][a-z0-9_-]*):)?([^:/\\]+\/[^:/\\]+)(?::([\w.-]{1,64}))?$/.exec(modelId);
    const scheme = match?.[1] ?? this.#config.default_source;
    const hub = this.#hubs.get(scheme);
    if (match?.[2] === undefined) {
      throw new AppError(
        'model_not_found',
        `there is no model "${modelId.slice(0, 200)}" in [models] dirs; add its directory, or use org/repo`,
        { extras: { model_id: modelId } },
      );
    }
    if (hub === undefined) {
      const known = [...this.#hubs.keys()].join(', ');
      throw new AppError('model_not_found', `there is no source "${scheme}"; [models.sources] has ${known}`);
    }
    return { hub, repo: match[2], tag: match[3] ?? null };
  }
}

/** Whether a configured id means a file: it ends in .gguf. Then its name is the file's stem. */
export function configuredFile(modelId: string, baseDir: string): { file: string; name: string } | null {
  if (!/\.gguf$/i.test(modelId)) return null;
  const file = configuredPath(modelId, baseDir);
  return { file, name: groupShards([file])[0]?.name ?? basename(file) };
}

/** A path that the configuration names; `~/` is the home directory. */
export function configuredPath(path: string, baseDir: string): string {
  const home = path.startsWith('~/') ? join(homedir(), path.slice(2)) : path;
  return isAbsolute(home) ? home : resolve(baseDir, home);
}

async function shardsOf(file: string): Promise<readonly string[]> {
  const shard = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i.exec(file);
  if (shard === null) return [file];
  const total = Number(shard[3]);
  const files = Array.from(
    { length: total },
    (_, i) => `${shard[1]}-${String(i + 1).padStart(5, '0')}-of-${shard[3]}.gguf`,
  );
  for (const each of files) {
    await stat(each).catch((cause) => {
      throw new AppError(
        'model_file_not_found',
        `${basename(each)} is missing; all ${total} parts are needed`,
        {
          cause,
        },
      );
    });
  }
  return files;
}

function complete(modelId: string, entry: CatalogueEntry): readonly string[] {
  if (entry.complete) return entry.files;
  throw new AppError(
    'model_file_not_found',
    `model "${modelId}" is split and only ${entry.files.length} of its parts are here; copy the rest`,
  );
}

/** As huggingface_hub looks it up. */
function defaultHubCache(env: NodeJS.ProcessEnv): string {
  if (env.HF_HUB_CACHE) return env.HF_HUB_CACHE;
  if (env.HF_HOME) return join(env.HF_HOME, 'hub');
  return join(homedir(), '.cache', 'huggingface', 'hub');
}
