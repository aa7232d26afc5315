/** What the readings of a node's memory do not show yet: loads since the last one, unloads just made. */

export interface MemoryShare {
  readonly devices: readonly number[];
  /** MiB on each of them. */
  readonly mb: number;
}

interface DeviceTotal {
  readonly index: number;
  readonly vram_total_mb: number;
}

export class LaggingMemory {
  readonly #shareOf: (model: string) => MemoryShare | null;
  /** Loaded since the last reading of the devices: their memory is not in it yet. */
  readonly #unread = new Set<string>();
  /** Unloaded, and the readings may not show it yet: who needs their memory waits for it. */
  readonly #returning = new Set<string>();

  constructor(shareOf: (model: string) => MemoryShare | null) {
    this.#shareOf = shareOf;
  }

  setLoaded(model: string, isLoaded: boolean): void {
    if (isLoaded) this.#unread.add(model);
    else this.#unread.delete(model);
  }

  isUnread(model: string): boolean {
    return this.#unread.has(model);
  }

  returning(model: string, on: boolean): void {
    if (on) this.#returning.add(model);
    else this.#returning.delete(model);
  }

  /** There is a reading that was asked for after the last load. */
  read(): void {
    this.#unread.clear();
  }

  /** Of all devices as read, less what was loaded since; null = no reading. */
  totalFreeMb(readings: readonly { readonly vram_free_mb: number | null }[]): number | null {
    if (readings.length === 0) return null;
    let total = -[...this.#sum(this.#unread).values()].reduce((sum, mb) => sum + mb, 0);
    for (const { vram_free_mb: mb } of readings) {
      if (mb === null) return null;
      total += mb;
    }
    return total;
  }

  /** Free MiB of a device by its reading, as things stand now. */
  lens(): (device: DeviceTotal, readMb: number | null) => number | null {
    const unread = this.#sum(this.#unread);
    const returning = this.#sum(this.#returning);
    return ({ index, vram_total_mb: totalMb }, readMb) => {
      if (readMb === null) return null;
      const mb = readMb - (unread.get(index) ?? 0) + (returning.get(index) ?? 0);
      return Math.min(totalMb, Math.max(0, mb));
    };
  }

  /** MiB per device of those models. */
  #sum(models: ReadonlySet<string>): ReadonlyMap<number, number> {
    const sums = new Map<number, number>();
    for (const model of models) {
      const share = this.#shareOf(model);
      for (const index of share?.devices ?? []) sums.set(index, (sums.get(index) ?? 0) + (share?.mb ?? 0));
    }
    return sums;
  }
}
