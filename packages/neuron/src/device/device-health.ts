/**
 * Figures of the devices for whoever asks, several gateways every few seconds.
 *
 * Problem: nvidia-smi takes up to seconds, and hangs where a driver does; then /health would hang with it,
 * and a neuron that serves well would count as dead. Whoever unloads a model asks for what is free now.
 * Design: one reading at a time. Who comes while one runs waits for the next, which began after it asked.
 * Limits: who asks waits `waitMsMax`, then gets the last figures, as where nvidia-smi failed; none that are
 * older than `ageMsMax`.
 */
import type { Clock } from 'cortex-core/daemon/clock';
import {
  type DeviceHealth,
  type DiscoveredDevice,
  type DiscoverySources,
  type Inventory,
  readDeviceHealth,
  withoutGpuFigures,
} from './discovery.ts';
import { within } from './within.ts';

/** Below what a gateway gives a poll, 5 s. */
const waitMsMax = 3000;
const ageMsMax = 60_000;

export class DeviceHealthReader {
  readonly #devices: readonly DiscoveredDevice[];
  readonly #sources: DiscoverySources;
  readonly #clock: Clock;
  #last: readonly DeviceHealth[];
  #readAtMs: number;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(
    { devices, health }: Pick<Inventory, 'devices' | 'health'>,
    sources: DiscoverySources,
    clock: Clock,
  ) {
    this.#devices = devices;
    this.#sources = sources;
    this.#clock = clock;
    this.#last = health;
    this.#readAtMs = clock.monotonicMs();
  }

  /** Never rejects. */
  async read(): Promise<readonly DeviceHealth[]> {
    await within(this.#clock, waitMsMax, this.#refresh());
    if (this.#clock.monotonicMs() - this.#readAtMs <= ageMsMax) return this.#last;
    return withoutGpuFigures(this.#devices, this.#sources);
  }

  #refresh(): Promise<void> {
    if (this.#running === null) return this.#start();
    this.#next ??= this.#running.then(() => {
      this.#next = null;
      return this.#start();
    });
    return this.#next;
  }

  #start(): Promise<void> {
    const keep = (health: readonly DeviceHealth[] | null): void => {
      if (health === null) return;
      this.#last = health;
      this.#readAtMs = this.#clock.monotonicMs();
    };
    const running = readDeviceHealth(this.#devices, this.#sources)
      .then(keep, () => {})
      .then(() => {
        this.#running = null;
      });
    this.#running = running;
    return running;
  }
}
