import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SeededRandom } from 'testkit/seeded-random';
import { chargeShare, createFairShare, enterShare, type InLine, nextInLine } from './fair-share.ts';

const inLine = (key: string, sinceMs: number, more: Partial<InLine> = {}): InLine => ({
  key,
  session: 's',
  priority: 0,
  sinceMs,
  ...more,
});

describe('nextInLine()', () => {
  test('the key that was served least is next, within it the session', () => {
    const share = createFairShare();
    chargeShare(share, { key: 'a', session: 'x' }, 100, 0);
    chargeShare(share, { key: 'b', session: 'x' }, 10, 20);
    chargeShare(share, { key: 'b', session: 'y' }, 10, 0);
    const line = [
      inLine('a', 1, { session: 'x' }),
      inLine('b', 2, { session: 'x' }),
      inLine('b', 3, { session: 'y' }),
    ];
    assert.equal(nextInLine(line, share, 10, 1000), line[2]);
  });

  test('equal shares go by age, a higher priority before them, a request that is due before all', () => {
    const share = createFairShare();
    const line = [inLine('a', 2), inLine('b', 1), inLine('c', 3, { priority: 5 })];
    assert.equal(nextInLine(line.slice(0, 2), share, 10, 1000), line[1]);
    assert.equal(nextInLine(line, share, 10, 1000), line[2]);
    assert.equal(nextInLine(line, share, 1001, 1000), line[1]);
    assert.equal(nextInLine([], share, 0, 0), null);
  });

  test('a key with a thousand requests gets no more tokens than one with few, while both wait', () => {
    const random = new SeededRandom();
    const { seed } = random;
    console.log(`TEST_SEED=${seed}`);
    const share = createFairShare();
    const line = new Set<InLine>();
    const enter = (key: string, sinceMs: number): void => {
      const request = inLine(key, sinceMs);
      enterShare(share, request, line);
      line.add(request);
    };
    for (let i = 0; i < 1000; i++) enter('flood', i);
    for (let i = 0; i < 100; i++) enter('few', 1000 + i);
    const served: Record<string, number> = { flood: 0, few: 0 };
    const most = 300;
    while ([...line].some((each) => each.key === 'few')) {
      const next = nextInLine(line, share, 2000, 1e9)!;
      line.delete(next);
      const tokens = 1 + random.int(0, most - 1);
      chargeShare(share, next, tokens, 0);
      served[next.key] = (served[next.key] ?? 0) + tokens;
      assert.ok(Math.abs(served.flood! - served.few!) <= most, `seed ${seed}: ${JSON.stringify(served)}`);
    }
  });

  test('a pause saves nothing up', () => {
    const share = createFairShare();
    chargeShare(share, { key: 'steady', session: 's' }, 50_000, 0);
    const waiting = inLine('steady', 1);
    const back = inLine('back', 2);
    enterShare(share, back, [waiting]);
    chargeShare(share, back, 10, 0);
    assert.equal(nextInLine([waiting, back], share, 3, 1000), waiting);
  });
});
