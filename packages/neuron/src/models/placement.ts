/**
 * Which device or group of devices a load goes to, and the books of what is taken there.
 *
 * Problem: two loads that race must not both be promised the same memory, also when one of them goes to a
 * group of which the other's device is a member, and also while a device's own figure is being read.
 * Design: the books are per device. A load on a group has a row in each member's book. Rows are made in the
 * same turn as the decision; what a device measures itself is read before, and every row that was not settled
 * when the reading began counts against it. A group's owner is opened with its first load and closed with its
 * last, so idle groups hold no context on any GPU.
 */
import { AppError } from 'cortex-core/wire/errors';
import type { DeviceMemory } from 'cortex-core/wire/inference';
import type { Device, OwnerDeath } from '../device/device.ts';
import {
  type DeviceSlot,
  findCandidates,
  type PlacementSpec,
  type Target,
  toTarget,
  type UnusableDevices,
} from './choose-target.ts';
import { groupTotals, type MemberMemory, shareOut } from './group-memory.ts';
import type { MemoryBudget } from './memory-budget.ts';

export interface Reservation {
  readonly slot: DeviceSlot;
  /** On the device or, over all its members, the group. */
  readonly mb: number;
  /** What was promised before the load was made. */
  readonly estimateMb: number;
  /** Parts of a split model, in the order of the members; null on one device. */
  readonly shares: readonly number[] | null;
  /**
   * Whether no other load came or went on these devices since, so that what they measure is its own doing.
   */
  readonly isUndisturbed: boolean;
  /** The load is done and took this much. */
  settle(mb: number): void;
  /** The owner that had it is about to end: from then on it is a promise again, until it is settled. */
  unsettle(): void;
  /** Idempotent. */
  release(): void;
}

/** MiB on the device; `hostMb` is memory of this machine that a load on a GPU takes besides. */
export interface Wanted {
  readonly mb: number;
  readonly hostMb?: number;
}

export interface Budgets {
  readonly device: MemoryBudget;
  /** Of the CPU's memory, for loads that go elsewhere; null where the neuron keeps no book of it. */
  readonly host: MemoryBudget | null;
  /** What the device gives is taken from the host as well. */
  readonly isShared: boolean;
}

/** Makes the owner of a group. Its device is shut down when the last model has left. */
export type OpenGroup = (members: readonly DeviceSlot[]) => Device;

export interface PlacementOptions {
  readonly openGroup?: OpenGroup | undefined;
  readonly unusable?: UnusableDevices | undefined;
}

interface Row {
  mb: number;
  settled: boolean;
}

interface Book {
  readonly rows: Set<Row>;
  /** Counts loads that came, were done, or left. */
  changes: number;
  /** What the device last said, and the loads that were in it. */
  reading: { readonly memory: DeviceMemory; readonly seen: ReadonlySet<Row> } | null;
}

interface BookedRow {
  readonly row: Row;
  readonly remove: () => void;
}

interface Group {
  readonly slot: DeviceSlot;
  readonly unsubscribe: () => void;
  users: number;
}

type DeathListener = (slot: DeviceSlot, death: OwnerDeath) => void;

export class Placement {
  readonly #slots: readonly DeviceSlot[];
  readonly #options: PlacementOptions;
  readonly #books = new Map<DeviceSlot, Book>();
  readonly #groups = new Map<string, Group>();
  readonly #listeners = new Set<DeathListener>();
  readonly #unsubscribe: (() => void)[];
  /** Owners of groups on their way out. */
  readonly #leaving = new Set<Promise<void>>();

  constructor(slots: readonly DeviceSlot[], options: PlacementOptions = {}) {
    this.#slots = slots;
    this.#options = options;
    this.#unsubscribe = slots.map((slot) => this.#watch(slot));
  }

  get slots(): readonly DeviceSlot[] {
    return this.#slots;
  }

  /** Of every device and of every group while it lives. */
  onOwnerDeath(listener: DeathListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Where the load can go, the best first: the devices that it names; else as many accelerators as it asks
   * for, those with most free memory; else the CPU.
   */
  async choose(spec: PlacementSpec, signal?: AbortSignal): Promise<readonly [Target, ...Target[]]> {
    const { slots, exact } = findCandidates(this.#slots, spec, this.#options.unusable);
    const size = spec.tensor_parallel ?? 1;
    if (exact || slots.length === size) return [toTarget(slots, spec)];
    const measured = await Promise.all(
      slots.map(async (slot) => ({ slot, freeMb: (await this.budget(slot, signal)).freeMb })),
    );
    const sorted = measured.sort((a, b) => b.freeMb - a.freeMb).map(({ slot }) => slot);
    const others = size > 1 ? [] : sorted.slice(1);
    return [toTarget(sorted.slice(0, size), spec), ...others.map((slot) => toTarget([slot], spec))];
  }

  /**
   * Throws `invalid_request` or `cuda_unavailable` when this machine does not have what the load asks for.
   */
  assertPossible(spec: PlacementSpec): void {
    const { slots, exact } = findCandidates(this.#slots, spec, this.#options.unusable);
    if (exact) toTarget(slots, spec);
  }

  /** Free now: of the budget what no load took, and no more than the device itself has. */
  async budget(slot: DeviceSlot, signal?: AbortSignal): Promise<MemoryBudget> {
    const [member] = await this.#measure([slot], signal);
    return toBudget(slot.device.id, member?.() ?? { freeMb: 0, totalMb: 0 });
  }

  /** The same by the books alone: what the device itself has is not asked. */
  booked(slot: DeviceSlot): MemoryBudget {
    return toBudget(slot.device.id, this.#booked(slot));
  }

  /** What the empty device gives, as far as is known without asking it. */
  totalMb(slot: DeviceSlot): number {
    const known = slot.totalMb || Number.POSITIVE_INFINITY;
    const measured = this.#bookOf(slot).reading?.memory.totalMb ?? known;
    return Math.min(slot.budgetMb ?? measured, measured);
  }

  /** Takes what `decide` returns, or throws what it throws; no one can come between. */
  async reserve<W extends Wanted>(
    target: Target,
    decide: (budgets: Budgets) => W,
    signal?: AbortSignal,
  ): Promise<{ readonly reservation: Reservation; readonly wanted: W }> {
    const hostSlot = target.members.some(({ kind }) => kind === 'cpu') ? undefined : this.#hostSlot();
    const isShared =
      hostSlot !== undefined && target.members.some(({ sharesHostMemory }) => sharesHostMemory);
    const readings = await this.#measure(target.members, signal);
    // From here to the rows nothing may wait.
    const members = readings.map((read) => read());
    const wanted = decide({
      device: toBudget(target.id, groupTotals(members, target.splitMode)),
      host: hostSlot === undefined ? null : toBudget(hostSlot.device.id, this.#booked(hostSlot)),
      isShared,
    });
    const shares = shareOut(wanted.mb, members, target.splitMode);
    const rows = target.members.map((slot, at) => this.#addRow(slot, shares[at] ?? 0));
    const hostRow = hostSlot && this.#addRow(hostSlot, wanted.hostMb ?? 0);
    const mirror = hostSlot && isShared ? this.#addRow(hostSlot, wanted.mb) : undefined;
    const beside = [hostRow, mirror].filter((row) => row !== undefined);
    try {
      return { reservation: this.#toReservation(target, wanted.mb, shares, rows, beside), wanted };
    } catch (error) {
      for (const { remove } of [...rows, ...beside]) remove();
      throw error;
    }
  }

  /** Ends the owners of all groups. Devices of their own belong to who made them. */
  async close(): Promise<void> {
    for (const stop of this.#unsubscribe) stop();
    for (const [id, group] of this.#groups) this.#closeGroup(id, group);
    await Promise.allSettled([...this.#leaving]);
  }

  /** `beside`: in the host's book; the second, if there is one, follows what the device takes. */
  #toReservation(
    target: Target,
    mb: number,
    shares: readonly number[],
    rows: readonly BookedRow[],
    beside: readonly BookedRow[],
  ): Reservation {
    const { slot, leave } = this.#enter(target);
    const mirror = beside[1];
    // An owner may see GPUs that are not its own, and measures them all.
    const books = [...new Set([...target.members, ...this.#slots.filter(({ kind }) => kind !== 'cpu')])].map(
      (each) => this.#bookOf(each),
    );
    const own = new Set(rows.map(({ row }) => row));
    const wasQuiet = books.every(({ rows: all }) =>
      [...all].every((other) => own.has(other) || other.settled),
    );
    const changes = books.map((book) => book.changes);
    let taken = mb;
    return {
      slot,
      get isUndisturbed() {
        return wasQuiet && books.every((book, at) => book.changes === changes[at]);
      },
      estimateMb: mb,
      shares: rows.length > 1 ? shares.map((share) => share / Math.max(mb, 1)) : null,
      get mb() {
        return taken;
      },
      settle: (actual) => {
        for (const [at, { row }] of rows.entries()) {
          row.mb = mb > 0 ? (actual * (shares[at] ?? 0)) / mb : actual / rows.length;
          row.settled = true;
        }
        for (const member of target.members) this.#bookOf(member).changes++;
        for (const { row } of beside) row.settled = true;
        if (mirror !== undefined) mirror.row.mb = actual;
        taken = actual;
      },
      unsettle: () => {
        for (const { row } of [...rows, ...beside]) row.settled = false;
        for (const member of target.members) this.#bookOf(member).changes++;
      },
      release: () => {
        for (const { remove } of [...rows, ...beside]) remove();
        leave();
      },
    };
  }

  /** The slot that the load goes to; a group's is opened by the first and closed after the last. */
  #enter(target: Target): { readonly slot: DeviceSlot; readonly leave: () => void } {
    const [first] = target.members;
    if (first !== undefined && target.members.length === 1) return { slot: first, leave: () => {} };
    const group = this.#groups.get(target.id) ?? this.#openGroup(target);
    group.users++;
    let left = false;
    const leave = (): void => {
      if (left) return;
      left = true;
      group.users--;
      if (group.users === 0) this.#closeGroup(target.id, group);
    };
    return { slot: group.slot, leave };
  }

  #openGroup(target: Target): Group {
    const open = this.#options.openGroup;
    if (open === undefined)
      throw new AppError('load_failed', `this neuron cannot group devices (${target.id})`);
    const slot: DeviceSlot = {
      indices: target.members.flatMap(({ indices }) => indices),
      kind: target.members[0]?.kind ?? 'cpu',
      device: open(target.members),
      budgetMb: null,
    };
    const group: Group = { slot, unsubscribe: this.#watch(slot), users: 0 };
    this.#groups.set(target.id, group);
    return group;
  }

  #closeGroup(id: string, group: Group): void {
    if (this.#groups.get(id) === group) this.#groups.delete(id);
    group.unsubscribe();
    const gone = group.slot.device.shutdown().finally(() => void this.#leaving.delete(gone));
    this.#leaving.add(gone);
  }

  #watch(slot: DeviceSlot): () => void {
    return slot.device.onOwnerDeath((death) => {
      for (const listener of [...this.#listeners]) listener(slot, death);
    });
  }

  #addRow(slot: DeviceSlot, mb: number): BookedRow {
    const row: Row = { mb, settled: false };
    const book = this.#bookOf(slot);
    book.rows.add(row);
    book.changes++;
    const remove = (): void => {
      if (book.rows.delete(row)) book.changes++;
    };
    return { row, remove };
  }

  #bookOf(slot: DeviceSlot): Book {
    const known = this.#books.get(slot);
    if (known !== undefined) return known;
    const book: Book = { rows: new Set(), changes: 0, reading: null };
    this.#books.set(slot, book);
    return book;
  }

  /**
   * Reads what the devices measure; each result says, whenever it is called, what is free by that reading.
   * Loads settled before the reading are in it; all others are not, whatever has become of them since.
   */
  async #measure(
    slots: readonly DeviceSlot[],
    signal?: AbortSignal,
  ): Promise<readonly (() => DeviceMemory)[]> {
    return Promise.all(
      slots.map(async (slot) => {
        const host = slot.sharesHostMemory ? this.#hostSlot() : undefined;
        const limits = [...(slot.budgetMb === null ? [] : [slot]), ...(host === undefined ? [] : [host])];
        const readBooks = (): DeviceMemory => toLeast(limits.map((each) => this.#booked(each)));
        if (slot.kind === 'cpu' && slot.budgetMb !== null) return readBooks;
        const { memory, seen } = await this.#read(slot, signal);
        return () => {
          const unseen = [...this.#bookOf(slot).rows].filter((row) => !seen.has(row));
          const freeMb = memory.freeMb - unseen.reduce((sum, row) => sum + row.mb, 0);
          return toLeast([{ freeMb, totalMb: memory.totalMb }, ...(limits.length > 0 ? [readBooks()] : [])]);
        };
      }),
    );
  }

  /** An owner that loads answers when it is done: meanwhile what it said before, less what came since. */
  async #read(slot: DeviceSlot, signal?: AbortSignal): Promise<NonNullable<Book['reading']>> {
    const book = this.#bookOf(slot);
    const isLoading = [...book.rows].some((row) => !row.settled);
    if (isLoading && book.reading !== null) return book.reading;
    const seen = new Set([...book.rows].filter((row) => row.settled));
    const reading = { memory: await queryMemory(slot, signal), seen };
    book.reading = reading;
    return reading;
  }

  #hostSlot(): DeviceSlot | undefined {
    return this.#slots.find(({ kind }) => kind === 'cpu');
  }

  #booked(slot: DeviceSlot): DeviceMemory {
    const totalMb = slot.budgetMb ?? 0;
    const taken = [...this.#bookOf(slot).rows].reduce((sum, row) => sum + row.mb, 0);
    return { freeMb: totalMb - taken, totalMb };
  }
}

/** An owner's own sum is over all that it sees. */
async function queryMemory(slot: DeviceSlot, signal?: AbortSignal): Promise<DeviceMemory> {
  if (slot.backendIndex === undefined) return slot.device.queryVram(signal);
  const devices = await slot.device.listBackendDevices(signal);
  const own = devices.find(({ index }) => index === slot.backendIndex);
  return own?.memory ?? { freeMb: 0, totalMb: 0 };
}

function toLeast(limits: readonly DeviceMemory[]): DeviceMemory {
  return {
    freeMb: Math.min(...limits.map(({ freeMb }) => freeMb)),
    totalMb: Math.min(...limits.map(({ totalMb }) => totalMb)),
  };
}

function toBudget(deviceId: string, { freeMb, totalMb }: MemberMemory): MemoryBudget {
  return { deviceId, freeMb: Math.max(0, Math.floor(freeMb)), totalMb: Math.floor(totalMb) };
}
