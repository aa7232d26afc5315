/** Models as Ollama lists them. What a gateway does not know of a file is left empty, not made up. */

export interface OllamaModel {
  readonly id: string;
  /** RFC 3339. */
  readonly modifiedAt: string;
  /** 64 hex digits; clients cut it to 12. */
  readonly digest: string;
  /** Of `text`, `tools`, `reasoning`, `vision`, `infill`, `embeddings`. */
  readonly capabilities: readonly string[];
  readonly context: number | null;
  /** MiB in memory, or what a load would take; null = not known. */
  readonly memoryMb: number | null;
}

/** Says that nothing unloads it by the clock; Ollama's own "for ever" is a date as far away. */
const neverExpires = '2318-01-01T00:00:00Z';
const quantPattern =
  /(?:^|[-._:])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|F(?:16|32)|BF16|MXFP4(?:_MOE)?))$/i;

/** Ollama's names have a tag; `latest` where ours has none. */
export function toOllamaName(id: string): string {
  return id.slice(id.lastIndexOf('/') + 1).includes(':') ? id : `${id}:latest`;
}

/** The fleet's id for what a client calls `name`; the name itself when the fleet has none. */
export function resolveOllamaName(name: string, ids: ReadonlySet<string>): string {
  if (ids.has(name)) return name;
  const bare = name.replace(/:latest$/i, '');
  if (ids.has(bare)) return bare;
  const wanted = bare.toLowerCase();
  for (const id of ids) if (id.toLowerCase() === wanted) return id;
  return bare;
}

/** A row of GET /api/tags. */
export function toTag(model: OllamaModel) {
  const name = toOllamaName(model.id);
  return {
    name,
    model: name,
    modified_at: model.modifiedAt,
    size: bytesOf(model.memoryMb),
    digest: model.digest,
    details: detailsOf(model.id),
  };
}

/** A row of GET /api/ps. */
export function toRunning(model: OllamaModel) {
  const { modified_at: _, ...tag } = toTag(model);
  return {
    ...tag,
    expires_at: neverExpires,
    size_vram: bytesOf(model.memoryMb),
    ...(model.context === null ? {} : { context_length: model.context }),
  };
}

/** The answer of POST /api/show. */
export function toShow(model: OllamaModel) {
  return {
    license: '',
    modelfile: `FROM ${model.id}\n`,
    parameters: '',
    template: '',
    details: detailsOf(model.id),
    model_info: {
      'general.architecture': architecture,
      'general.basename': model.id,
      // where editors look for how much a prompt may hold
      ...(model.context === null ? {} : { [`${architecture}.context_length`]: model.context }),
    },
    capabilities: model.capabilities.flatMap((each) => capabilityNames[each] ?? []),
    modified_at: model.modifiedAt,
  };
}

/** The gateway does not know that of the file; it is the prefix of the keys beside it. */
const architecture = 'gguf';

const capabilityNames: Readonly<Record<string, string>> = {
  text: 'completion',
  tools: 'tools',
  reasoning: 'thinking',
  vision: 'vision',
  infill: 'insert',
  embeddings: 'embedding',
};

function detailsOf(id: string) {
  return {
    parent_model: '',
    format: 'gguf',
    family: '',
    families: [],
    parameter_size: /(?:^|[-_.])(\d+(?:\.\d+)?[BM])(?:$|[-_.:])/i.exec(id)?.[1] ?? '',
    quantization_level: quantPattern.exec(id)?.[1] ?? '',
  };
}

function bytesOf(mb: number | null): number {
  return Math.round((mb ?? 0) * 1024 * 1024);
}
