/** A model of a fake neuron, and its row in GET /models. */

export interface FakeModel {
  readonly id: string;
  readonly vramMb: number;
  status: 'loaded' | 'loading' | 'recovering' | 'poisoned' | 'available';
  devices: number[];
  servable?: { ok: boolean; reason?: string; detail?: string };
  context?: number;
  /** What it says of its weights; its template is always the same. */
  weights?: string;
}

/** How it says that it was used. */
export interface FakeUse {
  load_id: string;
  requests: number;
  loaded_secs: number;
  idle_secs: number | null;
}

export interface UnloadSpec {
  readonly model_id: string;
  readonly unused_since?: Pick<FakeUse, 'load_id' | 'requests'>;
}

export function isUnusedSince(
  use: FakeUse | undefined,
  since: Pick<FakeUse, 'load_id' | 'requests'>,
): boolean {
  return use?.load_id === since.load_id && use.requests === since.requests;
}

export function toRow(model: FakeModel): unknown {
  return {
    id: model.id,
    harness: 'llamacpp',
    status: model.status,
    devices: model.status === 'loaded' ? model.devices : [],
    vram_used_mb: model.status === 'loaded' ? model.vramMb : null,
    // a neuron tells no size of what is still coming up
    vram_estimate_mb: model.status === 'loading' ? null : model.vramMb,
    capabilities: ['text'],
    ...(model.servable === undefined ? {} : { servable: model.servable }),
    ...(model.weights === undefined || model.status !== 'loaded'
      ? {}
      : { weights_digest: model.weights, template_digest: 'template' }),
    ...(model.context === undefined ? {} : { limit: { context: model.context, output: model.context } }),
  };
}
