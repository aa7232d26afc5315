/** Which rows share a compute graph: the plan, and on real weights that rows come in an order that can. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { LoadSpec } from 'cortex-core/wire/inference';
import koffi from 'koffi';
import type { LlamaBatch } from '../libllama/bindings.gen.ts';
import { loadLibrary } from '../libllama/load-library.ts';
import { countGraphs, GapCosts, planMoves } from './close-ranks.ts';
import { assertAlike, drain, type Heard, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';
import { writeTinyMamba } from './tiny-mamba.test.kit.ts';

const directory = mkdtempSync(join(tmpdir(), 'close-ranks-'));
after(() => rmSync(directory, { recursive: true }));
const mamba = join(directory, 'mamba.gguf');
writeTinyMamba(mamba);

/** The sequence ids of every decode call since it was emptied. */
const calls: number[][] = [];
const real = loadLibrary({ nativeLog: false });
const library = {
  ...real,
  api: {
    ...real.api,
    llama_decode(context: bigint | null, batch: LlamaBatch) {
      const [first] = koffi.decode(batch.seq_id as bigint, 'uint64_t', 1) as [bigint];
      calls.push([...(koffi.decode(first, 'int32_t', batch.n_tokens) as number[])]);
      return real.api.llama_decode(context, batch);
    },
  },
};
const engine = new Engine({ library });
after(() => engine.close());

function withModel(over: Partial<LoadSpec>, run: (model: LoadedModel) => void): void {
  const model = engine.load(tinySpec(over));
  try {
    run(model);
  } finally {
    model.close();
  }
}

/** Begins like no other seed's. */
const prompt = (model: LoadedModel, seed: number): Int32Array =>
  model.tokenize(`number ${seed} of them says: ${'so it goes, '.repeat(4)}`, {
    addSpecial: false,
    parseSpecial: false,
  });
const begin = (model: LoadedModel, seed: number, maxTokens: number) =>
  listen(model, requestFor(prompt(model, seed), { maxTokens, ignoreEos: true, topLogprobs: 20 }));

function stepUntil(model: LoadedModel, isReached: () => boolean): void {
  for (let step = 0; !isReached(); step++) {
    if (step > 2000) throw new Error('not reached');
    model.step();
  }
}

/** Each of `seeds` alone in a model of one slot. */
function alone(over: Partial<LoadSpec>, seeds: readonly number[], maxTokens: number): Heard[] {
  const all: Heard[] = [];
  withModel({ ...over, slots: 1 }, (model) => {
    for (const seed of seeds) {
      model.clearKv();
      const heard = begin(model, seed, maxTokens);
      drain(model);
      all.push(heard);
    }
  });
  return all;
}

const running = (...slots: readonly number[]) => slots.map((slot) => ({ slot, bytes: 100 }));

test('slots that follow one another are one graph, every gap is one more', () => {
  assert.equal(countGraphs([3]), 1);
  assert.equal(countGraphs([2, 3, 4]), 1);
  assert.equal(countGraphs([0, 2, 3, 7]), 3);
});

test('nobody moves who has no gap beside him', () => {
  assert.deepEqual(planMoves([], 8), []);
  assert.deepEqual(planMoves(running(5), 8), []);
  assert.deepEqual(planMoves(running(3, 4, 5), 8), []);
  assert.deepEqual(planMoves(running(0, 1, 2, 3), 4), []);
});

test('who stands apart moves into the gap', () => {
  assert.deepEqual(planMoves(running(0, 1, 3), 8), [{ from: 3, to: 2 }]);
  assert.deepEqual(planMoves(running(0, 2, 3, 7), 8), [{ from: 7, to: 1 }]);
  assert.deepEqual(planMoves(running(0, 3, 6), 8), [
    { from: 3, to: 1 },
    { from: 6, to: 2 },
  ]);
});

test('of two plans the one that copies less is taken', () => {
  const large = { slot: 0, bytes: 5000 };
  assert.deepEqual(planMoves([large, { slot: 2, bytes: 20 }], 4), [{ from: 2, to: 1 }]);
  assert.deepEqual(
    planMoves(
      [
        { slot: 0, bytes: 20 },
        { ...large, slot: 2 },
      ],
      4,
    ),
    [{ from: 0, to: 1 }],
  );
});

test('every plan ends in one graph, moves each sequence once and only into free slots', () => {
  for (let mask = 1; mask < 256; mask++) {
    const slots = [0, 1, 2, 3, 4, 5, 6, 7].filter((slot) => mask & (1 << slot));
    const after = new Set(slots);
    for (const { from, to } of planMoves(running(...slots), 8)) {
      assert.ok(after.delete(from), `${slots}: ${from} does not run`);
      assert.ok(!slots.includes(to) && !after.has(to), `${slots}: ${to} is taken`);
      after.add(to);
    }
    assert.equal(countGraphs([...after].sort((a, b) => a - b)), 1, `${slots}`);
  }
});

test('rows come in order of slots, however the requests came', () => {
  withModel({ slots: 4 }, (model) => {
    // Ended from the last to the first, the slots are taken again in that order.
    const first = [0, 1, 2, 3].map((seed) => begin(model, seed, 30 - 5 * seed));
    drain(model);
    const second = [3, 2, 1, 0].map((seed) => begin(model, seed, 30));
    calls.length = 0;
    drain(model);
    for (const { error } of [...first, ...second]) assert.equal(error, null);
    const full = calls.filter((sequences) => sequences.length === 4 && new Set(sequences).size === 4);
    assert.ok(full.length >= 20, `${full.length} steps with four rows`);
    for (const sequences of full) assert.equal(countGraphs(sequences), 1, `${sequences}`);
  });
});

for (const [name, over] of [
  ['cortex-tiny', {}],
  ['a recurrent model', { file: mamba }],
] as const) {
  test(`${name}: who is left apart moves up, and says what it would have said`, () => {
    const expected = alone(over, [0, 2, 3], 300);
    withModel({ ...over, slots: 4 }, (model) => {
      const heard = [0, 1, 2, 3].map((seed) => begin(model, seed, 300));
      stepUntil(model, () => heard.every(({ tokens }) => tokens.length > 3));
      heard[1]!.cancel();
      calls.length = 0;
      drain(model);
      const together = calls.filter((sequences) => sequences.length === 3);
      assert.ok(together.length > 200, `${together.length} steps with three rows`);
      assert.equal(countGraphs(together[0]!), 2);
      assert.equal(countGraphs(together.at(-1)!), 1);
      for (const [at, each] of [heard[0]!, heard[2]!, heard[3]!].entries()) {
        assert.equal(each.tokens.length, 300);
        assertAlike(each, expected[at]!, `sequence ${at}`);
      }
      // What moved ended in its new slot: the next turn goes on from there.
      const said = [...prompt(model, 3), ...heard[3]!.tokens];
      const next = listen(
        model,
        requestFor(Int32Array.from([...said, ...prompt(model, 4)]), { maxTokens: 1 }),
      );
      drain(model);
      assert.equal(next.result?.usage.cachedTokens, said.length - 1);
    });
  });
}

test('a new request takes the slot beside one that runs', () => {
  withModel({ slots: 8 }, (model) => {
    for (const seed of [0, 1, 2, 3, 4, 5, 6, 7]) begin(model, seed, 4 + seed);
    drain(model);
    const running = [10, 11, 12].map((seed) => begin(model, seed, 20));
    stepUntil(model, () => running.every(({ tokens }) => tokens.length > 3));
    calls.length = 0;
    model.step();
    assert.equal(countGraphs(calls[0]!), 1, `${calls[0]}`);
    drain(model);
  });
});

test('a move that fails leaves everybody where he was, and the slot that was wanted clean', () => {
  let isRefusing = false;
  const api = {
    ...library.api,
    llama_state_seq_get_data: (...args: Parameters<typeof real.api.llama_state_seq_get_data>) =>
      isRefusing ? 0 : real.api.llama_state_seq_get_data(...args),
  };
  const own = new Engine({ library: { ...library, api } });
  const model = own.load(tinySpec({ slots: 3 }));
  try {
    const heard = [0, 1, 2].map((seed) => begin(model, seed, seed === 1 ? 5 : 200));
    isRefusing = true;
    stepUntil(model, () => heard[1]!.result !== null);
    stepUntil(model, () => heard[0]!.tokens.length > 100);
    // The slot between the two was to be overwritten, and takes a new request all the same.
    const next = begin(model, 7, 20);
    drain(model);
    for (const each of [...heard, next]) assert.equal(each.error, null);
    assert.equal(next.tokens.length, 20);
    const [expected] = alone({}, [7], 20);
    assertAlike(next, expected!, 'the new one');
  } finally {
    own.close();
  }
});

test('what gaps have cost is counted until there are none, and a refused move is not asked for at every step', () => {
  const gaps = new GapCosts();
  gaps.observe(1, 10);
  assert.equal(gaps.worthMs, null);
  gaps.observe(2, 8);
  assert.equal(gaps.worthMs, 2);
  gaps.refused();
  assert.equal(gaps.worthMs, null);
  gaps.observe(2, 1);
  assert.equal(gaps.worthMs, null);
  gaps.observe(2, 8);
  assert.equal(gaps.worthMs, 4.25);
  gaps.observe(1, 10);
  assert.equal(gaps.worthMs, null);
});
