/**
 * Answers of the Responses API, kept for `previous_response_id` and for those who ask for them again.
 *
 * Problem: clients build conversations on ids alone, and whoever sends most would push the others out.
 * Design: in memory, as JSON bytes, one shelf per API key; a key sees its own shelf only. Limits on entries,
 * bytes and age over all; what has to go is the longest unused of the key that holds most. Age counts from
 * the last use, so that a running conversation keeps its beginning. Ids carry a mark of this gateway: one
 * that was made elsewhere, or before a restart, is told from one that has expired.
 * Limits: a restart forgets everything, and gateways do not share.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from 'cortex-core/daemon/clock';
import type { JsonObject } from '../dialects/request-body.ts';
import type { CallerStore, StoredResponse } from '../dialects/responses/store-face.ts';

export interface ResponseStoreLimits {
  /** 0 = nothing is kept. */
  readonly entriesMax: number;
  /** Bytes of JSON over all entries; a larger one is not kept. */
  readonly bytesMax: number;
  /** Since the last use. */
  readonly ageMsMax: number;
}

interface Entry {
  readonly bytes: Buffer;
  /** The text of its stream, to be sent again from any event on; null = it is not kept. */
  readonly events: Buffer | null;
  readonly itemIds: readonly string[];
  usedMs: number;
}

/** Of one key. Maps keep the order of use, the longest unused first. */
interface Shelf {
  readonly entries: Map<string, Entry>;
  /** Item -> the responses that have it, the newest last. */
  readonly items: Map<string, readonly string[]>;
  bytes: number;
}

export class ResponseStore {
  readonly #limits: ResponseStoreLimits;
  readonly #clock: Clock;
  readonly #shelves = new Map<string, Shelf>();
  /** Of this gateway, since its start. */
  readonly #mark = randomBytes(3).toString('hex');
  #entries = 0;
  #bytes = 0;

  constructor(limits: ResponseStoreLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  get entries(): number {
    return this.#entries;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** `prefix_` and 38 hexadecimal digits that nobody can guess. */
  newId(prefix: string): string {
    return `${prefix}_${this.#mark}${randomBytes(16).toString('hex')}`;
  }

  /** What belongs to `owner`: a text that stands for an API key. */
  of(owner: string): CallerShelf {
    // a request names many items of few responses
    const items = new Map<string, ReadonlyMap<unknown, JsonObject>>();
    return {
      keeps: this.#limits.entriesMax > 0,
      find: (id) => this.#find(owner, id),
      findItem: (id) => {
        const holder = this.#shelves.get(owner)?.items.get(id)?.at(-1);
        if (holder === undefined) return null;
        const known = items.get(holder) ?? this.#itemsOf(owner, holder);
        items.set(holder, known);
        return known.get(id) ?? null;
      },
      put: (stored, events) => this.#put(owner, stored, events ?? null),
      eventsOf: (id) => this.#shelves.get(owner)?.entries.get(id)?.events?.toString('utf8') ?? null,
      delete: (id) => this.#drop(owner, id),
      whyMissing: (id) => this.#whyMissing(id),
    };
  }

  #find(owner: string, id: string): StoredResponse | null {
    this.#expire();
    const shelf = this.#shelves.get(owner);
    const entry = shelf?.entries.get(id);
    if (shelf === undefined || entry === undefined) return null;
    entry.usedMs = this.#clock.monotonicMs();
    shelf.entries.delete(id);
    shelf.entries.set(id, entry);
    return JSON.parse(entry.bytes.toString('utf8')) as StoredResponse;
  }

  #itemsOf(owner: string, responseId: string): ReadonlyMap<unknown, JsonObject> {
    const found = this.#find(owner, responseId);
    if (found === null) return new Map();
    const items: readonly JsonObject[] = [
      ...found.input,
      ...found.response.output.map((item) => ({ ...item })),
    ];
    return new Map(items.map((item) => [item.id, item]));
  }

  #put(owner: string, stored: StoredResponse, text: string | null): void {
    const bytes = Buffer.from(JSON.stringify(stored));
    const fits = text !== null && bytes.length + Buffer.byteLength(text) <= this.#limits.bytesMax;
    const events = fits ? Buffer.from(text) : null;
    if (bytes.length > this.#limits.bytesMax || this.#limits.entriesMax === 0) return;
    this.#expire();
    const { id, output } = stored.response;
    this.#drop(owner, id);
    let shelf = this.#shelves.get(owner);
    if (shelf === undefined) {
      shelf = { entries: new Map(), items: new Map(), bytes: 0 };
      this.#shelves.set(owner, shelf);
    }
    const itemIds = [...new Set([...stored.input, ...output].map((item) => String(item.id)))];
    for (const itemId of itemIds) shelf.items.set(itemId, [...(shelf.items.get(itemId) ?? []), id]);
    const entry = { bytes, events, itemIds, usedMs: this.#clock.monotonicMs() };
    shelf.entries.set(id, entry);
    shelf.bytes += sizeOf(entry);
    this.#bytes += sizeOf(entry);
    this.#entries++;
    while (this.#entries > this.#limits.entriesMax) this.#evict(({ entries }) => entries.size);
    while (this.#bytes > this.#limits.bytesMax) this.#evict((each) => each.bytes);
  }

  /** Of whom holds most. */
  #evict(shareOf: (shelf: Shelf) => number): void {
    let largest: [string, Shelf] | null = null;
    for (const each of this.#shelves) {
      if (largest === null || shareOf(each[1]) > shareOf(largest[1])) largest = each;
    }
    const [oldest] = largest?.[1].entries.keys() ?? [];
    if (largest !== null && oldest !== undefined) this.#drop(largest[0], oldest);
  }

  #expire(): void {
    const oldestMs = this.#clock.monotonicMs() - this.#limits.ageMsMax;
    for (const [owner, { entries }] of this.#shelves) {
      for (const [id, { usedMs }] of entries) {
        if (usedMs > oldestMs) break;
        this.#drop(owner, id);
      }
    }
  }

  #drop(owner: string, id: string): boolean {
    const shelf = this.#shelves.get(owner);
    const entry = shelf?.entries.get(id);
    if (shelf === undefined || entry === undefined) return false;
    shelf.entries.delete(id);
    for (const itemId of entry.itemIds) {
      const holders = shelf.items.get(itemId)?.filter((holder) => holder !== id) ?? [];
      if (holders.length === 0) shelf.items.delete(itemId);
      else shelf.items.set(itemId, holders);
    }
    shelf.bytes -= sizeOf(entry);
    this.#bytes -= sizeOf(entry);
    this.#entries--;
    if (shelf.entries.size === 0) this.#shelves.delete(owner);
    return true;
  }

  #whyMissing(id: string): string {
    if (this.#limits.entriesMax === 0) return 'This gateway keeps no responses; send the whole conversation.';
    if (!id.includes(`_${this.#mark}`)) {
      return 'It was not made by this gateway, or before its restart; send the whole conversation.';
    }
    const secs = Math.round(this.#limits.ageMsMax / 1000);
    return `It was not stored, was deleted, or was not used for ${secs} s; send the whole conversation.`;
  }
}

function sizeOf({ bytes, events }: Pick<Entry, 'bytes' | 'events'>): number {
  return bytes.length + (events?.length ?? 0);
}

export interface CallerShelf extends CallerStore {
  /** `events`: the text of its stream; not kept where there is no room for both. */
  readonly put: (stored: StoredResponse, events?: string | null) => void;
  /** Does not count as a use. */
  readonly eventsOf: (id: string) => string | null;
  /** False when there was none. */
  readonly delete: (id: string) => boolean;
}
