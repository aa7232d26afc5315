import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventLog, splitEvents } from './event-log.ts';

const event = (at: number): string => `event: e\ndata: {"sequence_number":${at}}\n\n`;
const bytes = (...numbers: number[]): Buffer => Buffer.from(numbers.map(event).join(''));

describe('EventLog', () => {
  test('an event has the place of its number, however many come at once', () => {
    const log = new EventLog(10_000);
    log.add(bytes(0, 1));
    log.add(new Uint8Array(0));
    log.add(bytes(2, 3, 4));
    assert.equal(log.length, 5);
    assert.equal(log.from(3), event(3) + event(4));
    assert.equal(log.from(5), '');
    assert.equal(log.from(99), '');
    assert.deepEqual(splitEvents(log.from(0) ?? ''), [0, 1, 2, 3, 4].map(event));
  });

  test('beyond its room the oldest go, and who still needs them is told', () => {
    const log = new EventLog(event(0).length * 3);
    for (let at = 0; at < 10; at++) log.add(bytes(at));
    assert.equal(log.from(6), null);
    assert.equal(log.from(7), event(7) + event(8) + event(9));
    const tiny = new EventLog(5);
    tiny.add(bytes(0));
    assert.equal(tiny.from(0), null);
    assert.equal(tiny.from(1), '');
  });

  test('who waits is woken by the next event, by the end, and by leaving', async () => {
    const log = new EventLog(1000);
    const stays = new AbortController();
    const leaves = new AbortController();
    await log.more(-1, stays.signal);
    const next = log.more(0, stays.signal);
    const gone = log.more(0, leaves.signal);
    leaves.abort();
    await gone;
    log.add(bytes(0));
    await next;
    const end = log.more(1, stays.signal);
    log.end();
    await end;
    await log.more(7, stays.signal);
  });
});
