/**
 * The memory of a group of devices, and how a load is shared out over its members. Pure.
 *
 * Split by layer, each member takes a part in proportion to what it has free, so a group has the sum. Split
 * by row or tensor, each matrix is cut into equal parts: the member with least free memory decides.
 */
import type { SplitMode } from 'cortex-core/wire/inference';

/** MiB. */
export interface MemberMemory {
  readonly freeMb: number;
  readonly totalMb: number;
}

export function groupTotals(members: readonly MemberMemory[], splitMode: SplitMode): MemberMemory {
  const free = members.map(({ freeMb }) => Math.max(0, freeMb));
  const total = members.map(({ totalMb }) => totalMb);
  if (isEqual(splitMode) && members.length > 1) {
    return { freeMb: Math.min(...free) * members.length, totalMb: Math.min(...total) * members.length };
  }
  return { freeMb: sum(free), totalMb: sum(total) };
}

/** MiB of each member, together `mb`. */
export function shareOut(
  mb: number,
  members: readonly MemberMemory[],
  splitMode: SplitMode,
): readonly number[] {
  const free = members.map(({ freeMb }) => Math.max(0, freeMb));
  const all = sum(free);
  if (isEqual(splitMode) || all === 0) return members.map(() => mb / members.length);
  return free.map((each) => (mb * each) / all);
}

function isEqual(splitMode: SplitMode): boolean {
  return splitMode === 'row' || splitMode === 'tensor';
}

function sum(values: readonly number[]): number {
  return values.reduce((total, each) => total + each, 0);
}
