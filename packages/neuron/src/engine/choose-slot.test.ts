import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseSlot, findLeader, findPrefix, type SlotView } from './choose-slot.ts';

const range = (from: number, length: number): Int32Array => Int32Array.from({ length }, (_, at) => from + at);
const join = (...parts: readonly Int32Array[]): Int32Array =>
  Int32Array.from(parts.flatMap((part) => [...part]));
const system = range(1000, 200);

function view(slot: number, tokens: Int32Array, over: Partial<SlotView> = {}): SlotView {
  const cells = over.cells ?? tokens.length;
  return { slot, isBusy: false, tokens, cells, cellsComing: cells, usedAt: slot + 1, ...over };
}

const any = () => true;
const choose = (prompt: Int32Array, slots: readonly SlotView[]) =>
  chooseSlot(prompt, slots, findPrefix(prompt, slots, [], false, any), false);

test('findPrefix() takes the longest beginning, and never the last token of the prompt', () => {
  const prompt = join(system, range(1, 50));
  const slots = [view(0, join(system, range(500, 9))), view(1, prompt)];
  assert.deepEqual(findPrefix(prompt, slots, [], false, any), {
    from: { kind: 'slot', slot: 1 },
    length: 249,
  });
  assert.deepEqual(findPrefix(prompt, [slots[0]!], [], false, any), {
    from: { kind: 'slot', slot: 0 },
    length: 200,
  });
  const snapshots = [{ id: 7, tokens: join(system, range(1, 20)) }];
  assert.deepEqual(findPrefix(prompt, [slots[0]!], snapshots, false, any), {
    from: { kind: 'snapshot', id: 7 },
    length: 220,
  });
});

test('findPrefix() counts only what is computed of a running prompt', () => {
  const prompt = join(system, range(1, 50));
  const running = view(0, prompt, { isBusy: true, cells: 64, cellsComing: prompt.length });
  assert.equal(findPrefix(prompt, [running], [], false, any)?.length, 64);
});

test('findPrefix() of a model whose state cannot be cut wants whole matches', () => {
  const prompt = join(system, range(1, 50));
  const longer = view(0, join(system, range(9000, 30)));
  const snapshots = [{ id: 1, tokens: system }];
  assert.deepEqual(findPrefix(prompt, [longer], snapshots, true, any), {
    from: { kind: 'snapshot', id: 1 },
    length: 200,
  });
  assert.equal(findPrefix(prompt, [longer], [], true, any), null);
});

test('chooseSlot() goes on in the slot of the same chat, though another is empty', () => {
  const chat = join(system, range(1, 100));
  const prompt = join(chat, range(7000, 20));
  const slots = [view(0, new Int32Array(0)), view(1, chat)];
  assert.deepEqual(choose(prompt, slots), { slot: 1, isCopied: false });
});

test('chooseSlot() leaves a long chat alone when only its beginning is shared', () => {
  const prompt = join(system, range(1, 30));
  const slots = [view(0, join(system, range(5000, 800))), view(1, new Int32Array(0))];
  assert.deepEqual(choose(prompt, slots), { slot: 1, isCopied: true });
});

test('chooseSlot() overwrites what has been idle longest when nothing is shared', () => {
  const slots = [
    view(0, range(1, 900), { usedAt: 5 }),
    view(1, range(2000, 700), { usedAt: 2 }),
    view(2, range(4000, 600), { usedAt: 9 }),
  ];
  assert.equal(chooseSlot(range(9000, 40), slots, null, false)?.slot, 1);
  assert.equal(chooseSlot(range(9000, 40), [view(0, system, { isBusy: true })], null, false), null);
});

test('findLeader() waits for an earlier prompt that is still being read', () => {
  const prompt = join(system, range(1, 50));
  const reading = view(0, join(system, range(600, 40)), { isBusy: true, cells: 32, cellsComing: 240 });
  assert.deepEqual(findLeader(prompt, [reading], 0, new Set([0])), { slot: 0, length: 200 });
  assert.equal(findLeader(prompt, [reading], 0, new Set()), null, 'a later one waits for nobody behind it');
  assert.equal(findLeader(prompt, [reading], 190, new Set([0])), null, 'ten tokens are read faster');
  const done = view(0, reading.tokens, { isBusy: true });
  assert.equal(
    findLeader(prompt, [done], 0, new Set([0])),
    null,
    'what is computed is copied, not waited for',
  );
});

test('findPrefix() takes the next best when the longest is too dear to copy', () => {
  const prompt = join(system, range(1, 50));
  const slots = [view(0, prompt), view(1, system)];
  const cheap = findPrefix(prompt, slots, [], false, ({ from }) => from.kind === 'slot' && from.slot !== 0);
  assert.deepEqual(cheap, { from: { kind: 'slot', slot: 1 }, length: 200 });
});

test('chooseSlot() goes on in a long chat whose copy is too dear, rather than compute it again', () => {
  const chat = range(1, 5000);
  const prompt = join(chat.subarray(0, 4800), range(9000, 20));
  const slots = [view(0, new Int32Array(0)), view(1, chat)];
  assert.deepEqual(chooseSlot(prompt, slots, null, false), { slot: 1, isCopied: false });
});
