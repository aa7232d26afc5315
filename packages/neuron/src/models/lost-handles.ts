import { AppError } from 'cortex-core/wire/errors';
import type { OwnerDeath } from '../device/device.ts';
import type { DeviceSlot } from './choose-target.ts';
import type { LoadedModel } from './loader.ts';

/**
 * Which handles died with their owner. A load's reply and the owner's death can both be on their way when
 * somebody awaits the reply: before a handle is put to use it is looked up here. Handles rise and are never
 * reused, so the largest lost one says it all.
 */
export class LostHandles {
  readonly #largest = new WeakMap<DeviceSlot, number>();

  note(slot: DeviceSlot, { lostHandles }: OwnerDeath): void {
    this.#largest.set(slot, Math.max(this.#largest.get(slot) ?? 0, ...lostHandles));
  }

  has({ slot, arch }: LoadedModel): boolean {
    return arch.handle <= (this.#largest.get(slot) ?? 0);
  }

  toError({ slot }: LoadedModel): AppError {
    const text = `device ${slot.device.id} lost its owner right after the load; try again`;
    return new AppError('device_gone', text, { retryAfterSecs: 2 });
  }
}
