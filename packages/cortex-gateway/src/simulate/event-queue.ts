/** What happens next, in order of time and, at the same time, of being scheduled: a binary heap. */
interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export interface EventQueue {
  readonly nowMs: number;
  at(atMs: number, run: () => void): void;
  /** Runs until nothing is left, or more than `eventsMax` ran; then it throws. */
  run(eventsMax: number): void;
}

export function createEventQueue(): EventQueue {
  const heap: Entry[] = [];
  let nowMs = 0;
  let order = 0;
  return {
    get nowMs() {
      return nowMs;
    },
    at(atMs, run) {
      push(heap, { atMs: Math.max(nowMs, atMs), order: order++, run });
    },
    run(eventsMax) {
      for (let i = 0; i < eventsMax; i++) {
        const next = pop(heap);
        if (next === undefined) return;
        nowMs = next.atMs;
        next.run();
      }
      throw new Error(`more than ${eventsMax} events: the simulation does not end`);
    },
  };
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function push(heap: Entry[], entry: Entry): void {
  let at = heap.length;
  heap.push(entry);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(entry, heap[parent] as Entry)) break;
    heap[at] = heap[parent] as Entry;
    at = parent;
  }
  heap[at] = entry;
}

function pop(heap: Entry[]): Entry | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (top === undefined || last === undefined || heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Entry, heap[child] as Entry)) child++;
    if (!isBefore(heap[child] as Entry, last)) break;
    heap[at] = heap[child] as Entry;
    at = child;
  }
  heap[at] = last;
  return top;
}
