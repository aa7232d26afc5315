/** How a loaded model gets to another owner: its load and its warm prefixes go there, it stays until then. */
import type { ExportedArch } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { Target } from './choose-target.ts';
import type { LoadedModel } from './loader.ts';
import { checkFits, type MemoryNeed } from './memory-budget.ts';
import type { Budgets, Placement, Reservation, Wanted } from './placement.ts';

export interface Adoption {
  readonly onProgress: (fraction: number) => void;
  readonly signal: AbortSignal;
}

export interface Transfer extends Adoption {
  readonly spec: ModelSpec;
  readonly target: Target;
}

/** The same model on `target`. Nothing stays there after an error; `model` itself is not touched. */
export async function transferModel(
  placement: Placement,
  model: LoadedModel,
  transfer: Transfer,
): Promise<LoadedModel> {
  const { spec, target, signal } = transfer;
  const isCpu = target.members[0]?.kind === 'cpu';
  const decide = (budgets: Budgets): Wanted => wantedFor(spec.model_id, model, isCpu, budgets);
  const { reservation } = await placement.reserve(target, decide, signal);
  try {
    const exported = await model.slot.device.exportArch(model.arch.handle, signal);
    // What a load says about the device itself; all else is the model's and moves with it.
    const fitted = {
      ...exported.spec,
      splitMode: target.splitMode,
      gpuLayers: isCpu ? 0 : (spec.gpu_layers ?? null),
      tensorSplit: reservation.shares ?? undefined,
    };
    const moved = await adoptModel(model, { ...exported, spec: fitted }, reservation, transfer);
    return isCpu ? { ...moved, hostLayersMb: 0 } : moved;
  } catch (error) {
    reservation.release();
    throw error;
  }
}

/** What was exported, loaded where memory is reserved for it already. */
export async function adoptModel(
  model: LoadedModel,
  exported: ExportedArch,
  reservation: Reservation,
  { onProgress, signal }: Adoption,
): Promise<LoadedModel> {
  const { slot } = reservation;
  const arch = await slot.device.transferIn(exported, ({ fraction }) => onProgress(fraction), signal);
  // The CPU's owner does not see all of it: there it takes what it took before.
  const actual = arch.facts.memoryParts === undefined ? Math.ceil(arch.facts.memoryMb) : 0;
  reservation.settle(actual > 0 ? actual : reservation.mb);
  return { ...model, slot, arch, reservation };
}

/**
 * As much as it takes where it is. The prefix cache is host memory, wherever the model goes; so are layers
 * that no GPU has.
 */
function wantedFor(modelId: string, model: LoadedModel, isCpu: boolean, budgets: Budgets): Wanted {
  const { device, host, isShared } = budgets;
  const { reservation, slot, prefixCacheMb } = model;
  const besideMb = prefixCacheMb + model.hostLayersMb;
  const modelMb = reservation.mb - (slot.kind === 'cpu' ? prefixCacheMb : 0);
  const need = (mb: number): MemoryNeed => ({ mb, estimate: null });
  const mb = isCpu ? modelMb + besideMb : modelMb;
  checkFits(modelId, need(mb), device);
  if (!isCpu && host !== null && besideMb > 0) {
    checkFits(modelId, need(besideMb + (isShared ? mb : 0)), host);
  }
  return { mb, hostMb: isCpu ? 0 : besideMb };
}
