/** Drafts of a model's own layers: fewer steps, the same answers, and guesses that hang on the text alone. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { LlamaContextType } from '../libllama/bindings.gen.ts';
import { loadLibrary } from '../libllama/load-library.ts';
import { readInt32, viewFloats } from '../libllama/native-memory.ts';
import { drain, type Heard, listen, type RequestOverrides, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';
import { createRandom } from './tiny-gguf.test.kit.ts';
import { next, stateWidth, type TinyMtp, writeTinyMtp } from './tiny-mtp.test.kit.ts';

const folder = mkdtempSync(join(tmpdir(), 'mtp-'));
const library = loadLibrary({ nativeLog: false });
/** Every step costs the same, so drafts always pay and the tests do not depend on the machine. */
let clock = 0;
const engine = new Engine({ library, now: () => clock++ });
after(() => {
  engine.close();
  rmSync(folder, { recursive: true });
});

let files = 0;
function write(model: TinyMtp): string {
  const file = join(folder, `${files++}.gguf`);
  writeTinyMtp(file, model);
  return file;
}

const right = write({});
const models: readonly (readonly [string, string])[] = [
  ['a layer that is right', right],
  ['a layer that is wrong at every third word', write({ wrongEvery: 3 })],
  ['two layers that are right', write({ heads: 2 })],
  ['two layers that are wrong at every fourth word', write({ heads: 2, wrongEvery: 4 })],
  ['two layers beside a sliding window', write({ architecture: 'step35', heads: 2, wrongEvery: 5 })],
  ['a recurrent model', write({ architecture: 'qwen35' })],
  ['a recurrent model with experts', write({ architecture: 'qwen35moe', wrongEvery: 3 })],
];

type Options = Partial<Parameters<typeof tinySpec>[0]>;

function load(file: string, speculation: 'off' | 'mtp', over: Options = {}, from = engine): LoadedModel {
  return from.load(tinySpec({ file, modelId: 'mtp', speculation, slots: 4, context: 512, ...over }));
}

/** The text from `token` on, `length` tokens of it. */
function textFrom(token: number, length: number): Int32Array {
  const tokens = new Int32Array(length);
  let at = token;
  for (let index = 0; index < length; index++) {
    tokens[index] = at;
    at = next(at);
  }
  return tokens;
}

function submit(model: LoadedModel, tokens: Int32Array, over: RequestOverrides = {}): Heard {
  return listen(model, requestFor(tokens, { maxTokens: 60, ignoreEos: true, topLogprobs: 2, ...over }));
}

function answer(
  model: LoadedModel,
  tokens: Int32Array,
  over: RequestOverrides = {},
): Heard & { steps: number } {
  const heard = submit(model, tokens, over);
  let steps = 0;
  for (; model.hasWork(); steps++) model.step();
  assert.equal(heard.error, null);
  return { ...heard, steps };
}

/** The same answer, out of the same cells: logprobs hang on what these hold, and a little on the kernels. */
function assertSame(heard: Heard, expected: Heard, name = ''): void {
  const visible = ({ tokens, text, result }: Heard): unknown => {
    return { tokens, text, reason: result?.finishReason, completion: result?.usage.completionTokens };
  };
  const logprobs = ({ events }: Heard): number[] =>
    events.flatMap((event) => event.logprobs ?? []).flatMap(({ top }) => top.map(({ logprob }) => logprob));
  assert.deepEqual(visible(heard), visible(expected), name);
  const [own, wanted] = [logprobs(heard), logprobs(expected)];
  const furthest = Math.max(0, ...own.map((value, at) => Math.abs(value - (wanted[at] ?? 0))));
  assert.ok(furthest < 0.01, `${name}: a logprob is off by ${furthest}`);
}

const spent = ({ result }: Heard): { drafted: number; accepted: number } =>
  result?.speculation ?? { drafted: 0, accepted: 0 };

for (const [name, file] of models) {
  test(`${name}: answers are those of plain decoding, greedy and with a seed, in fewer steps`, () => {
    const [plain, drafting] = [load(file, 'off'), load(file, 'mtp')];
    for (const sampling of [
      { temperature: 0 },
      { temperature: 0.8, seed: 4 },
      { temperature: 0.8, seed: 9 },
    ]) {
      for (const from of [10, 31]) {
        const expected = answer(plain, textFrom(from, 5), { sampling });
        const heard = answer(drafting, textFrom(from, 5), { sampling });
        assertSame(heard, expected);
        assert.ok(spent(heard).accepted >= 10, JSON.stringify(spent(heard)));
        assert.ok(
          heard.steps <= expected.steps - spent(heard).accepted,
          `${heard.steps} of ${expected.steps}`,
        );
      }
    }
    plain.close();
    drafting.close();
  });
}

test('a layer that is right is never refused, one from its own state nor a second after the first', () => {
  for (const file of [right, models[2]?.[1] ?? '']) {
    const model = load(file, 'mtp');
    const { drafted, accepted } = spent(answer(model, textFrom(20, 9), { maxTokens: 100 }));
    assert.equal(accepted, drafted);
    assert.ok(accepted > 50, `${accepted} accepted`);
    model.close();
  }
});

test('the next turn in a slot, a cut prefix and a prefix from host memory are drafted and answered as ever', () => {
  for (const [name, file] of models) {
    const over = { slots: 1, prefixCacheMb: 64, batch: 64, ubatch: 32 };
    const [plain, drafting] = [load(file, 'off', over), load(file, 'mtp', over)];
    const chat = textFrom(10, 110);
    const prompts = [
      chat.subarray(0, 80),
      // the same, further on
      chat,
      // cut in the middle, and on with something else
      Int32Array.from([...chat.subarray(0, 50), ...textFrom(90, 40)]),
      // another text takes the slot; then the first comes back from host memory
      textFrom(64, 90),
      Int32Array.from([...chat.subarray(0, 80), ...textFrom(7, 9)]),
    ];
    for (const prompt of prompts) {
      const expected = answer(plain, prompt, { maxTokens: 30 });
      const heard = answer(drafting, prompt, { maxTokens: 30 });
      assertSame(heard, expected, name);
      assert.deepEqual(heard.result?.usage, expected.result?.usage, name);
      assert.ok(spent(heard).accepted >= 10, `${name}: ${JSON.stringify(spent(heard))}`);
    }
    plain.close();
    drafting.close();
  }
});

test('four at once, and some cancelled in the middle: the others answer as ever and draft when alone', () => {
  for (const [name, file] of models) {
    const [plain, drafting] = [load(file, 'off'), load(file, 'mtp')];
    const runs = [plain, drafting].map((model) => {
      const all = [10, 33, 60, 81].map((from, at) => submit(model, textFrom(from, 20 + 31 * at)));
      for (let step = 0; step < 6; step++) model.step();
      all[1]?.cancel();
      for (let step = 0; step < 6; step++) model.step();
      all[0]?.cancel();
      const late = submit(model, textFrom(99, 70), { maxTokens: 110 });
      all[2]?.cancel();
      drain(model);
      assert.equal(all[3]?.error, null);
      // Whoever takes the slots of the cancelled ones after them.
      const next = [10, 33].map((from) => answer(model, textFrom(from, 25)));
      return [all[3], late, ...next].map((heard) => heard as Heard);
    });
    for (const [at, heard] of (runs[1] ?? []).entries()) assertSame(heard, runs[0]?.[at] as Heard, name);
    // Of those two the later one is alone at last.
    for (const heard of runs[1]?.slice(1) ?? []) assert.ok(spent(heard).accepted > 5, name);
    plain.close();
    drafting.close();
  }
});

interface Row {
  readonly token: number;
  readonly position: number;
  /** The word one position before. */
  readonly before: number;
  /** The word whose hidden state came with it; 0 = a state of zeros. */
  readonly has: number;
  /** With a state of the model's own: rows before it, which it attends to, that had one of a layer's. */
  readonly guessesSeen: number;
}

/** Sees every row that the layers are given, and what state of which word came with it. */
function watchRows(): { readonly own: Engine; readonly rows: Row[] } {
  const rows: Row[] = [];
  /** By sequence, then position. */
  const said: number[][] = [];
  const guesses: boolean[][] = [];
  let context: unknown = null;
  const api = {
    ...library.api,
    llama_init_from_model: (...args: Parameters<typeof library.api.llama_init_from_model>) => {
      const made = library.api.llama_init_from_model(...args);
      if (args[1].ctx_type === LlamaContextType.LLAMA_CONTEXT_TYPE_MTP) context = made;
      return made;
    },
    llama_decode: (...args: Parameters<typeof library.api.llama_decode>) => {
      const [made, { n_tokens: count, ...batch }] = args;
      const width = stateWidth;
      for (let row = 0; made === context && row < count; row++) {
        const readAt = (block: unknown): number => readInt32((block as bigint) + BigInt(4 * row));
        // Of a layer's own state the second half says what came before; the model's has noise there.
        const state = viewFloats((batch.embd as bigint) + BigInt(4 * width * row), width);
        const isGuess = Math.max(...state.subarray(width / 2)) > 4;
        const known = state.subarray(0, width / 2);
        const [token, position, sequence] = [
          readAt(batch.token),
          readAt(batch.pos),
          readSequence(batch.seq_id, row),
        ];
        said[sequence] ??= [];
        guesses[sequence] ??= [];
        const before = position === 0 ? 0 : (said[sequence][position - 1] ?? -1);
        const guessesSeen = isGuess ? 0 : guesses[sequence].slice(0, position).filter(Boolean).length;
        rows.push({ token, position, before, has: known.indexOf(Math.max(...known)), guessesSeen });
        guesses[sequence][position] = isGuess;
        said[sequence][position] = token;
      }
      return library.api.llama_decode(...args);
    },
  };
  return { own: new Engine({ library: { ...library, api }, now: () => clock++ }), rows };
}

function readSequence(pointers: unknown, row: number): number {
  const table = new BigUint64Array(viewFloats(pointers as bigint, 2 * (row + 1)).buffer);
  return readInt32(table[row] as bigint);
}

for (const [name, file] of models) {
  test(`${name}: every row has the hidden state of the word before it, whoever was read beside it`, () => {
    const { own, rows } = watchRows();
    const model = load(file, 'mtp', { ubatch: 64, batch: 128 }, own);
    // Self-check of the load.
    rows.length = 0;
    const all = [10, 40, 70].map((from, at) =>
      submit(model, textFrom(from, 17 + 83 * at), { maxTokens: 70 }),
    );
    for (let step = 0; step < 4; step++) model.step();
    all.push(submit(model, textFrom(100, 90), { maxTokens: 20 }));
    drain(model);
    all.push(answer(model, textFrom(55, 40), { maxTokens: 100, sampling: { temperature: 0.9, seed: 2 } }));
    for (const heard of all) assert.equal(heard.error, null);
    assert.ok(rows.length > 600, `${rows.length} rows`);
    const strange = rows.filter(({ before, has, guessesSeen }) => before !== has || guessesSeen > 0);
    assert.deepEqual(strange.slice(0, 5), [], `${strange.length} of ${rows.length}`);
    own.close();
  });
}

test('a prefix from host memory brings cells and hidden state of the layers along', () => {
  for (const [name, file] of models) {
    const { own, rows } = watchRows();
    const chat = textFrom(10, 100);
    // A recurrent state goes on where it was saved: before the last token of a prompt.
    const model = load(file, 'mtp', { slots: 1, prefixCacheMb: 64 }, own);
    answer(model, chat, { maxTokens: 1 });
    answer(model, textFrom(70, 120), { maxTokens: 20 });
    rows.length = 0;
    const back = answer(model, Int32Array.from([...chat, 7, 8, 9]), { maxTokens: 12 });
    const cached = back.result?.usage.cachedTokens ?? 0;
    assert.ok(cached >= 99, `${name}: ${cached} cached`);
    // What waited of the other chat was computed when that was saved.
    const first = rows.find(({ token }) => token === 7 || token === chat[99]);
    assert.deepEqual([first?.position, first?.has], [cached, chat[cached - 1]], name);
    own.close();
  }
});

test('an owner with the layers takes prefixes of one without, and the other way round they are left out', () => {
  const [plain, drafting] = [load(right, 'off'), load(right, 'mtp')];
  const chat = textFrom(10, 60);
  for (const model of [plain, drafting]) answer(model, chat, { maxTokens: 10 });
  const [fresh, freshPlain] = [load(right, 'mtp'), load(right, 'off')];
  fresh.importPrefixes(plain.exportPrefixes());
  const heard = answer(fresh, textFrom(10, 69), { maxTokens: 40 });
  assert.ok((heard.result?.usage.cachedTokens ?? 0) >= 60);
  assert.ok(spent(heard).accepted > 20);
  const other = load(right, 'mtp');
  other.importPrefixes(drafting.exportPrefixes());
  const taken = answer(other, textFrom(10, 69), { maxTokens: 40 });
  assert.ok((taken.result?.usage.cachedTokens ?? 0) >= 60);
  assert.equal(spent(taken).accepted, spent(taken).drafted);
  freshPlain.importPrefixes(drafting.exportPrefixes());
  assert.equal(answer(freshPlain, textFrom(10, 69)).result?.usage.cachedTokens, 0);
  for (const model of [plain, drafting, fresh, freshPlain, other]) model.close();
});

// Greedy alone: the likeliest word is so by far, while a drawn one hangs on the last bits of a logit.
test('random chats over few slots, cancelled now and then: every answer is that of plain decoding', () => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1e9);
  const draw = createRandom(seed);
  const random = (below: number): number => Math.floor(((draw() + 1) / 2) * below) % below;
  for (const [name, file] of models) {
    const drafting = load(file, 'mtp', { slots: 2, prefixCacheMb: 1, ubatch: 48, batch: 64 });
    const plain = load(file, 'off', { slots: 1 });
    const chats = Array.from({ length: 4 }, (_, at) => textFrom(10 + 25 * at, 40));
    for (let round = 0; round < 12; round++) {
      const heard = Array.from({ length: 1 + random(3) }, () => {
        const chat = random(chats.length);
        const kept = (chats[chat] as Int32Array).subarray(0, 20 + random(200));
        const tokens = Int32Array.from([...kept, ...textFrom(5 + random(120), 1 + random(70))]);
        return { chat, tokens, one: submit(drafting, tokens, { maxTokens: 25 }) };
      });
      for (let step = random(12); step > 0; step--) drafting.step();
      if (random(3) === 0) heard[0]?.one.cancel();
      drain(drafting);
      for (const { chat, tokens, one } of heard) {
        const text = `TEST_SEED=${seed}, ${name}, round ${round}`;
        assert.equal(one.error, null, text);
        if (one.result?.finishReason === 'cancelled') continue;
        plain.clearKv();
        assert.deepEqual(one.tokens, answer(plain, tokens, { maxTokens: 25 }).tokens, text);
        chats[chat] = tokens.length > 250 ? textFrom(20, 40) : Int32Array.from([...tokens, ...one.tokens]);
      }
    }
    drafting.close();
    plain.close();
  }
});

test('forwardLogits and its snapshots go past the layers and do not disturb them', () => {
  const [plain, drafting] = [load(right, 'off'), load(right, 'mtp')];
  const heard = submit(drafting, textFrom(10, 20));
  for (let step = 0; step < 5; step++) drafting.step();
  const logits = [plain, drafting].map((model) => {
    model.forwardLogits(textFrom(50, 40), 0);
    const { id } = model.snapshotKv();
    model.forwardLogits(textFrom(7, 5), 40);
    model.restoreKv(id);
    return model.forwardLogits(textFrom(80, 3), 40);
  });
  assert.deepEqual(logits[1], logits[0]);
  drain(drafting);
  assert.deepEqual(heard.tokens, answer(plain, textFrom(10, 20)).tokens);
  assert.equal(spent(heard).accepted, spent(heard).drafted);
  plain.close();
  drafting.close();
});

test('a context that fails costs nothing but its drafts, and comes back', () => {
  let contexts = 0;
  let ownContext: unknown = null;
  let failing = 0;
  const api = {
    ...library.api,
    llama_init_from_model: (...args: Parameters<typeof library.api.llama_init_from_model>) => {
      const made = library.api.llama_init_from_model(...args);
      if (++contexts === 2) ownContext = made;
      return made;
    },
    llama_decode: (...args: Parameters<typeof library.api.llama_decode>) =>
      args[0] === ownContext && failing-- > 0 ? -3 : library.api.llama_decode(...args),
  };
  const own = new Engine({ library: { ...library, api }, now: () => clock++ });
  for (const [name, file] of models) {
    contexts = 0;
    const [plain, drafting] = [load(file, 'off'), load(file, 'mtp', { ubatch: 32 }, own)];
    const expected = answer(plain, textFrom(10, 70), { maxTokens: 50 });
    for (const first of [1, 2, 5]) {
      failing = first;
      const heard = answer(drafting, textFrom(10, 70), { maxTokens: 50 });
      assert.deepEqual(heard.tokens, expected.tokens, name);
      drafting.clearKv();
    }
    assert.ok(spent(answer(drafting, textFrom(10, 70))).accepted > 10, name);
    drafting.close();
    plain.close();
  }
  own.close();
});

test('where the layers cannot be used the model is loaded without and says why', () => {
  const broken = (over: Partial<NonNullable<typeof library.nextn>>) => {
    assert.ok(library.nextn);
    return { ...library, nextn: { ...library.nextn, ...over } };
  };
  const noContext: typeof library.api.llama_init_from_model = (model, params) =>
    params.ctx_type === LlamaContextType.LLAMA_CONTEXT_TYPE_MTP
      ? (null as unknown as bigint)
      : library.api.llama_init_from_model(model, params);
  const libraries: [typeof library, RegExp][] = [
    [{ ...library, nextn: null }, /lacks the functions/],
    [broken({ stateOf: () => null }), /they give no hidden state/],
    [{ ...library, api: { ...library.api, llama_model_n_layer_nextn: () => 0 } }, /finds none in the file/],
    [{ ...library, api: { ...library.api, llama_init_from_model: noContext } }, /no room for the context/],
  ];
  const expected = load(right, 'off');
  assert.deepEqual([expected.facts.drafts, expected.facts.draftsWhy], ['off', undefined]);
  const { tokens } = answer(expected, textFrom(10, 20));
  for (const [each, why] of libraries) {
    const own = new Engine({ library: each, now: () => clock++ });
    const model = load(right, 'mtp', {}, own);
    assert.equal(model.facts.drafts, 'ngram');
    assert.match(model.facts.draftsWhy ?? '', why);
    assert.deepEqual(answer(model, textFrom(10, 20)).tokens, tokens);
    own.close();
  }
  const model = load(right, 'mtp');
  assert.deepEqual([model.facts.drafts, model.facts.draftsWhy], ['mtp', undefined]);
  model.close();
  expected.close();
});

test('stops, budgets and the end of the context are exact in the middle of accepted guesses', () => {
  const over = { slots: 1, context: 96 };
  const [plain, drafting] = [load(right, 'off', over), load(right, 'mtp', over)];
  for (const maxTokens of [1, 2, 7, 16, 17, 40, null]) {
    for (const stops of [[], ['w12']]) {
      const expected = answer(plain, textFrom(10, 12), { maxTokens, stops });
      assertSame(answer(drafting, textFrom(10, 12), { maxTokens, stops }), expected);
    }
  }
  plain.close();
  drafting.close();
});
