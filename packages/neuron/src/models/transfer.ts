/** How a loaded model gets to another owner: its load and its warm prefixes go there, it stays until then. */
import type { ExportedArch, LoadSpec } from 'cortex-core/wire/inference';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { LoadedModel } from './loader.ts';
import { checkFits } from './memory.ts';
import type { DeviceSlot, Placement, Reservation } from './placement.ts';

export interface Transfer {
  readonly spec: ModelSpec;
  readonly target: DeviceSlot;
  readonly onProgress: (fraction: number) => void;
  readonly signal: AbortSignal;
}

/** The same model on `target`. Nothing stays there after an error; `model` itself is not touched. */
export async function transferModel(
  placement: Placement,
  model: LoadedModel,
  transfer: Transfer,
): Promise<LoadedModel> {
  const { spec, target, signal } = transfer;
  const { mb } = model.reservation;
  const reservation = await placement.reserve(target, (budget) => {
    checkFits(spec.model_id, mb, budget);
    return mb;
  });
  try {
    const exported = await model.slot.device.exportArch(model.arch.handle, signal);
    return await adoptModel(model, exported, reservation, transfer);
  } catch (error) {
    reservation.release();
    throw error;
  }
}

/** What was exported, loaded on `target` in memory that is reserved there already. */
export async function adoptModel(
  model: LoadedModel,
  exported: ExportedArch,
  reservation: Reservation,
  { spec, target, onProgress, signal }: Transfer,
): Promise<LoadedModel> {
  const fitted = { ...exported, spec: fitTo(target, exported.spec, spec) };
  const arch = await target.device.transferIn(fitted, ({ fraction }) => onProgress(fraction), signal);
  const actual = Math.ceil(arch.facts.memoryMb);
  reservation.settle(actual > 0 ? actual : reservation.mb);
  return { ...model, slot: target, arch, reservation };
}

/** What a load spec says about the device itself; all else is the model's and moves with it. */
function fitTo(target: DeviceSlot, exported: LoadSpec, spec: ModelSpec): LoadSpec {
  return {
    ...exported,
    splitMode: spec.split_mode ?? (target.indices.length > 1 ? 'layer' : 'none'),
    gpuLayers: target.kind === 'cpu' ? 0 : (spec.gpu_layers ?? null),
  };
}
