/**
 * A Hugging Face hub, or a server that speaks its protocol, and the cache directory its tools share.
 *
 * What is in the cache is used without asking the network. Else: the revision, its file list, the choice of a
 * quantisation, the download of its shards into blobs/<sha256>, links under snapshots/<revision>/, refs/main.
 * Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
 */
import { copyFile, mkdir, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { AppError } from 'cortex-core/wire/errors';
import { z } from 'zod';
import { type CatalogueEntry, chooseQuant, groupShards, repoFolder, scanHubRepo } from './catalogue.ts';
import { type DownloadDeps, downloadFile, fetchFailed, throwDisk } from './download.ts';

export interface HubOptions {
  readonly endpoint: string;
  readonly cacheDir: string;
  /** Name of the variable that may hold a token; for messages. */
  readonly authEnv: string | null;
  readonly token: string | null;
}

export interface HubModel {
  readonly files: readonly string[];
  /** SHA-256 of the first file; null when unknown. */
  readonly digest: string | null;
}

export type FetchProgress = (bytesDone: number, bytesTotal: number) => void;

interface RemoteFile {
  readonly path: string;
  readonly bytes: number;
  readonly blob: string;
  readonly sha256: string | null;
}

const revisionSchema = z.looseObject({ sha: z.string().regex(/^[\w.-]{1,100}$/) });
const treeSchema = z.array(
  z.looseObject({
    type: z.string(),
    path: z.string(),
    size: z.number().int().nonnegative(),
    oid: z.string(),
    lfs: z.looseObject({ oid: z.string(), size: z.number().int().nonnegative() }).nullish(),
  }),
);
const treePagesMax = 20;
const repoPattern = /^[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95}$/;

export class Hub {
  readonly #options: HubOptions;
  readonly #deps: DownloadDeps;
  /** Two ids may name one file: the second waits for the first. */
  readonly #running = new Map<string, Promise<void>>();

  constructor(options: HubOptions, deps: DownloadDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get cacheDir(): string {
    return this.#options.cacheDir;
  }

  /** From the cache alone; null when it is not there or not whole. */
  async findCached(repo: string, quant: string | null): Promise<HubModel | null> {
    if (!isRepoName(repo)) return null;
    const entries = (await scanHubRepo(this.#options.cacheDir, repo)).filter((entry) => entry.complete);
    const chosen = chooseQuant(entries, quant);
    if (chosen === null) return null;
    // A link whose blob was deleted is not a cached file.
    const sizes = await Promise.all(chosen.files.map((file) => stat(file).catch(() => null)));
    return sizes.includes(null) ? null : { files: chosen.files, digest: null };
  }

  async fetchModel(
    repo: string,
    quant: string | null,
    onProgress: FetchProgress,
    signal: AbortSignal,
  ): Promise<HubModel> {
    if (!isRepoName(repo)) {
      throw new AppError('model_not_found', `"${repo.slice(0, 100)}" is not a repository name like org/name`);
    }
    const cached = await this.findCached(repo, quant);
    if (cached !== null) return cached;
    const revision = await this.#revision(repo, signal);
    const remote = await this.#listFiles(repo, revision, signal);
    const chosen = this.#choose(repo, remote, quant);
    const bytesTotal = chosen.reduce((sum, file) => sum + file.bytes, 0);
    const root = join(this.#options.cacheDir, repoFolder(repo));
    const files: string[] = [];
    let before = 0;
    for (const file of chosen) {
      await this.#fetchFile(
        repo,
        revision,
        root,
        file,
        (done) => onProgress(before + done, bytesTotal),
        signal,
      );
      const disk = { label: `${repo}/${file.path}`, bytes: file.bytes, path: root };
      files.push(await linkSnapshot(root, revision, file).catch((error) => throwDisk(disk, error)));
      before += file.bytes;
    }
    const all = { label: repo, bytes: bytesTotal, path: root };
    await writeRef(root, revision).catch((error) => throwDisk(all, error));
    return { files, digest: chosen[0]?.sha256 ?? null };
  }

  /** Who comes second waits for the first, and goes on alone when the first was given up. */
  async #fetchFile(
    repo: string,
    revision: string,
    root: string,
    file: RemoteFile,
    onProgress: (done: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const blob = join(root, 'blobs', file.blob);
    for (let other = this.#running.get(blob); other !== undefined; other = this.#running.get(blob)) {
      await untilSettled(other, signal);
    }
    const path = file.path.split('/').map(encodeURIComponent).join('/');
    const url = `${this.#base()}/${repo}/resolve/${revision}/${path}`;
    const job = {
      url,
      headers: this.#headers(),
      path: blob,
      bytes: file.bytes,
      sha256: file.sha256,
      onProgress,
    };
    const started = downloadFile({ ...job, label: `${repo}/${file.path}` }, this.#deps, signal).finally(() =>
      this.#running.delete(blob),
    );
    this.#running.set(blob, started);
    await started;
  }

  async #revision(repo: string, signal: AbortSignal): Promise<string> {
    const { value } = await this.#getJson(repo, `${this.#base()}/api/models/${repo}/revision/main`, signal);
    const parsed = revisionSchema.safeParse(value);
    if (!parsed.success) throw fetchFailed(repo, 'the server did not name a revision', parsed.error);
    return parsed.data.sha;
  }

  async #listFiles(repo: string, revision: string, signal: AbortSignal): Promise<RemoteFile[]> {
    const files: RemoteFile[] = [];
    let url: string | null = `${this.#base()}/api/models/${repo}/tree/${revision}?recursive=1`;
    for (let page = 0; url !== null && page < treePagesMax; page++) {
      const answer: { value: unknown; next: string | null } = await this.#getJson(repo, url, signal);
      const parsed = treeSchema.safeParse(answer.value);
      if (!parsed.success) throw fetchFailed(repo, 'the file list has an unknown form', parsed.error);
      for (const row of parsed.data) {
        if (row.type !== 'file' || !/\.gguf$/i.test(row.path) || !isPlainPath(row.path)) continue;
        const sha256 = row.lfs && /^[0-9a-f]{64}$/.test(row.lfs.oid) ? row.lfs.oid : null;
        const blob = sha256 ?? row.oid;
        if (!/^[0-9a-f]{40,64}$/.test(blob)) continue;
        files.push({ path: row.path, bytes: row.lfs?.size ?? row.size, blob, sha256 });
      }
      url = sameOrigin(answer.next, url);
    }
    return files;
  }

  #choose(repo: string, remote: readonly RemoteFile[], quant: string | null): RemoteFile[] {
    const models = groupShards(remote.map((file) => file.path)).filter((entry) => entry.complete);
    if (models.length === 0) {
      throw new AppError('empty_repo', `${repo} holds no GGUF files; choose a repository with GGUF weights`, {
        extras: { model_id: repo },
      });
    }
    const chosen = chooseQuant(models, quant);
    if (chosen === null) throw quantNotFound(repo, quant ?? '', models);
    return remote
      .filter((file) => chosen.files.includes(file.path))
      .sort((a, b) => a.path.localeCompare(b.path));
  }

  async #getJson(
    repo: string,
    url: string,
    signal: AbortSignal,
  ): Promise<{ value: unknown; next: string | null }> {
    let response: Response;
    try {
      response = await this.#deps.fetch(url, { headers: this.#headers(), signal });
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      throw fetchFailed(
        repo,
        `${this.#base()} cannot be reached; check the network, or put the file in [models] dirs`,
        cause,
      );
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw fetchFailed(repo, this.#explainStatus(response.status));
    }
    const next = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get('link') ?? '')?.[1] ?? null;
    try {
      return { value: await response.json(), next };
    } catch (cause) {
      throw fetchFailed(repo, 'the server did not answer in JSON', cause);
    }
  }

  #explainStatus(status: number): string {
    const { authEnv, token } = this.#options;
    if (status === 401 || status === 403) {
      const variable = authEnv === null ? 'the source has no auth_env' : `set ${authEnv}`;
      return token === null
        ? `it is private, gated or does not exist (${status}); ${variable}`
        : `the token in ${authEnv ?? 'auth_env'} may not read it (${status})`;
    }
    if (status === 404) return 'there is no such repository (404); check the spelling';
    return `the server answered ${status}`;
  }

  #headers(): Record<string, string> {
    const { token } = this.#options;
    return { 'user-agent': 'cortex-neuron', ...(token === null ? {} : { authorization: `Bearer ${token}` }) };
  }

  #base(): string {
    return this.#options.endpoint.replace(/\/+$/, '');
  }
}

function quantNotFound(repo: string, requested: string, models: readonly CatalogueEntry[]): AppError {
  const available = models.map((entry) => entry.quant ?? entry.name);
  const nearest = nearestOf(requested, available);
  const message = `${repo} has no quantisation "${requested.slice(0, 64)}"; it has ${available.join(', ')}`;
  return new AppError('quant_not_found', message, {
    extras: { model_id: repo, requested, available, nearest },
  });
}

/** Most characters in common from the start, then the closest length. */
function nearestOf(wanted: string, names: readonly string[]): string | null {
  const score = (name: string): number => {
    let same = 0;
    while (same < wanted.length && wanted[same]?.toLowerCase() === name[same]?.toLowerCase()) same++;
    return same * 100 - Math.abs(name.length - wanted.length);
  };
  return [...names].sort((a, b) => score(b) - score(a))[0] ?? null;
}

async function linkSnapshot(root: string, revision: string, file: RemoteFile): Promise<string> {
  const path = join(root, 'snapshots', revision, ...file.path.split('/'));
  const blob = join(root, 'blobs', file.blob);
  await mkdir(dirname(path), { recursive: true });
  const target = relative(dirname(path), blob);
  // Left alone when it is right: another id of the same file may be reading through it.
  if ((await readlink(path).catch(() => null)) === target) return path;
  await rm(path, { force: true });
  try {
    await symlink(target, path);
  } catch {
    await copyFile(blob, path); // a file system or user without links, as on Windows
  }
  return path;
}

async function writeRef(root: string, revision: string): Promise<void> {
  await mkdir(join(root, 'refs'), { recursive: true });
  await writeFile(join(root, 'refs', 'main'), revision);
}

/** However it ends; rejects only with the signal's reason. */
async function untilSettled(work: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let onAbort = (): void => {};
  const aborted = new Promise<void>((resolve) => {
    onAbort = resolve;
  });
  signal.addEventListener('abort', onAbort, { once: true });
  await Promise.race([work.catch(() => {}), aborted]);
  signal.removeEventListener('abort', onAbort);
  signal.throwIfAborted();
}

/** The next page's address; null when it would take the token to another server. */
function sameOrigin(next: string | null, current: string): string | null {
  if (next === null || !URL.canParse(next, current)) return null;
  const url = new URL(next, current);
  return url.origin === new URL(current).origin ? url.href : null;
}

function isRepoName(repo: string): boolean {
  return repoPattern.test(repo) && !repo.includes('..');
}

function isPlainPath(path: string): boolean {
  const parts = path.split('/');
  return !parts.some((part) => part === '' || part === '.' || part === '..') && basename(path).length < 256;
}
