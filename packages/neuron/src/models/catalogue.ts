/**
 * Model files on this machine's disk, by name. Names come from here and never become paths: an id from the
 * network is looked up, not opened.
 *
 * `dirs`: every GGUF below them, named by its stem. The Hugging Face cache: `org/name:QUANT` per file of the
 * revision that refs/main names. Shards (-00001-of-0000N) are one model. Projectors (mmproj) are left out.
 * Limits: 8 levels deep, 20,000 entries.
 */
import { readdir, readFile, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';

export interface CatalogueEntry {
  readonly name: string;
  /** Absolute; all shards in order. */
  readonly files: readonly string[];
  /** e.g. `Q4_K_M`; null when the name does not say. */
  readonly quant: string | null;
  /** Whether all shards are there. */
  readonly complete: boolean;
}

const depthMax = 8;
const entriesMax = 20_000;
const shardPattern = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;
const quantPattern = /(?:^|[-._])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|F(?:16|32)|BF16|MXFP4(?:_MOE)?))$/i;

/** First wins where two directories have the same name. */
export async function scanDirs(dirs: readonly string[]): Promise<Map<string, CatalogueEntry>> {
  const found = new Map<string, CatalogueEntry>();
  for (const dir of dirs) {
    for (const entry of groupShards(await listGguf(dir))) {
      if (!found.has(entry.name)) found.set(entry.name, entry);
    }
  }
  return found;
}

/** Files of one repository in the cache, at refs/main; empty when there are none. */
export async function scanHubRepo(cacheDir: string, repo: string): Promise<CatalogueEntry[]> {
  const root = join(cacheDir, repoFolder(repo));
  const revision = await readText(join(root, 'refs', 'main'));
  if (revision === null || !/^[\w.-]{1,100}$/.test(revision)) return [];
  return groupShards(await listGguf(join(root, 'snapshots', revision)));
}

/** `org/name` of every repository in the cache that holds GGUF files, with them. */
export async function scanHubCache(cacheDir: string): Promise<Map<string, readonly CatalogueEntry[]>> {
  const found = new Map<string, readonly CatalogueEntry[]>();
  for (const folder of await readdir(cacheDir).catch(() => [])) {
    const match = /^models--([\w.-]+?)--([\w.-]+)$/.exec(folder);
    if (match === null) continue;
    const repo = `${match[1]}/${match[2]}`;
    const entries = await scanHubRepo(cacheDir, repo);
    if (entries.length > 0) found.set(repo, entries);
  }
  return found;
}

export function repoFolder(repo: string): string {
  return `models--${repo.replaceAll('/', '--')}`;
}

/** The exact name, else without regard to case, else the name without its quantisation suffix. */
export function findByName(
  entries: ReadonlyMap<string, CatalogueEntry>,
  id: string,
  quant: string | null,
): CatalogueEntry | null {
  const exact = entries.get(id);
  if (exact !== undefined && matchesQuant(exact, quant)) return exact;
  const wanted = id.toLowerCase();
  const colon = wanted.lastIndexOf(':');
  const [stem, tag] = colon === -1 ? [wanted, quant] : [wanted.slice(0, colon), wanted.slice(colon + 1)];
  const sorted = [...entries.values()].sort((a, b) => a.name.localeCompare(b.name));
  return (
    sorted.find((entry) => entry.name.toLowerCase() === stem && matchesQuant(entry, tag)) ??
    chooseQuant(
      sorted.filter((entry) => stripQuant(entry.name).toLowerCase() === stem && entry.quant !== null),
      tag,
    )
  );
}

/** Usual preference where a repository has several and none was asked for. */
const quantOrder = ['Q4_K_M', 'Q4_K_S', 'Q4_0', 'Q4_1', 'Q5_K_M', 'Q6_K', 'Q8_0'];

/**
 * By the exact quantisation, else by case-insensitive substring of the file name; without a wish the usual
 * favourite, else the first.
 */
export function chooseQuant(entries: readonly CatalogueEntry[], quant: string | null): CatalogueEntry | null {
  if (quant !== null) {
    const wanted = quant.toLowerCase();
    const exact = entries.find((entry) => entry.quant?.toLowerCase() === wanted); // F16 is not BF16
    return exact ?? entries.find((entry) => matchesQuant(entry, quant)) ?? null;
  }
  for (const favourite of quantOrder) {
    const hit = entries.find((entry) => entry.quant?.toUpperCase() === favourite);
    if (hit !== undefined) return hit;
  }
  return entries[0] ?? null;
}

export function groupShards(files: readonly string[]): CatalogueEntry[] {
  const groups = new Map<string, { files: string[]; total: number }>();
  for (const file of [...files].sort()) {
    const name = basename(file);
    if (/^mmproj/i.test(name)) continue;
    const shard = shardPattern.exec(file);
    const stem = shard === null ? file.replace(/\.gguf$/i, '') : (shard[1] ?? file);
    const group = groups.get(stem) ?? { files: [], total: shard === null ? 1 : Number(shard[3]) };
    group.files.push(file);
    groups.set(stem, group);
  }
  return [...groups].map(([stem, group]) => {
    const name = basename(stem);
    return { name, files: group.files, quant: quantOf(name), complete: group.files.length === group.total };
  });
}

function quantOf(name: string): string | null {
  return quantPattern.exec(name)?.[1] ?? null;
}

function stripQuant(name: string): string {
  return name.replace(quantPattern, '');
}

function matchesQuant(entry: CatalogueEntry, quant: string | null): boolean {
  return quant === null || entry.name.toLowerCase().includes(quant.toLowerCase());
}

/** Follows links to directories, each directory once. */
async function listGguf(root: string): Promise<string[]> {
  const files: string[] = [];
  const seen = new Set<string>();
  let entries = 0;
  const walk = async (dir: string, depth: number): Promise<void> => {
    const real = await realpath(dir).catch(() => null);
    if (real === null || seen.has(real) || depth > depthMax) return;
    seen.add(real);
    for (const entry of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
      if (++entries > entriesMax) return;
      const path = join(dir, entry.name);
      if (/\.gguf$/i.test(entry.name) && !entry.isDirectory()) files.push(path);
      else if (entry.isDirectory() || entry.isSymbolicLink()) await walk(path, depth + 1);
    }
  };
  await walk(root, 0);
  return files;
}

async function readText(file: string): Promise<string | null> {
  return readFile(file, 'utf8').then(
    (text) => text.trim(),
    () => null,
  );
}
