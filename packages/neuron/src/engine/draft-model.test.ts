/** Drafts of a second model: the answer is the larger one's, whatever the smaller one says. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { loadLibrary } from '../libllama/load-library.ts';
import { DraftModel } from './draft-model.ts';
import { chatTokens, drain, type Heard, listen, requestFor, tinyFile, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';
import { closeModel, openModel } from './open-model.ts';
import { writeTinyMamba } from './tiny-mamba.test.kit.ts';
import { readVocabulary } from './vocabulary.ts';

let clock = 0;
const folder = mkdtempSync(join(tmpdir(), 'draft-'));
const library = loadLibrary({ nativeLog: false });
const engine = new Engine({ library, now: () => clock++ });
after(() => {
  engine.close();
  rmSync(folder, { recursive: true });
});
const base = { slots: 3, context: 256, flashAttention: null } as const;
const questions = [
  'What is the capital of France?',
  'Who are you?',
  'What is 3 plus 4?',
  'Tell me about the sun.',
];

function run(model: LoadedModel, sampling: { temperature: number; seed?: number }): Heard[] {
  const heard = questions.map((question) => {
    const params = requestFor(chatTokens(model, question), { maxTokens: 40, ignoreEos: true, sampling });
    const one = listen(model, params);
    drain(model);
    return one;
  });
  for (const { error } of heard) assert.equal(error, null);
  return heard;
}

test('a model that drafts for itself is believed, and answers stay what they were', () => {
  const plain = engine.load(tinySpec(base));
  const drafting = engine.load(tinySpec({ ...base, speculation: 'ngram', draftFile: tinyFile }));
  for (const sampling of [{ temperature: 0 }, { temperature: 0.7, seed: 5 }]) {
    const expected = run(plain, sampling);
    const heard = run(drafting, sampling);
    assert.deepEqual(
      heard.map(({ tokens }) => tokens),
      expected.map(({ tokens }) => tokens),
    );
    const accepted = heard.reduce((sum, { result }) => sum + (result?.speculation?.accepted ?? 0), 0);
    assert.ok(accepted > 30, `${accepted} drafts accepted`);
  }
  plain.close();
  drafting.close();
});

test('a draft model whose device fails costs nothing but its drafts', () => {
  let contexts = 0;
  let draftContext: unknown = null;
  const api = {
    ...library.api,
    llama_init_from_model: (...args: Parameters<typeof library.api.llama_init_from_model>) => {
      const made = library.api.llama_init_from_model(...args);
      if (++contexts === 2) draftContext = made;
      return made;
    },
    llama_decode: (...args: Parameters<typeof library.api.llama_decode>) =>
      args[0] === draftContext ? -3 : library.api.llama_decode(...args),
  };
  const own = new Engine({ library: { ...library, api }, now: () => clock++ });
  const plain = engine.load(tinySpec(base));
  const drafting = own.load(tinySpec({ ...base, speculation: 'ngram', draftFile: tinyFile }));
  const sampling = { temperature: 0 };
  assert.deepEqual(
    run(drafting, sampling).map(({ tokens }) => tokens),
    run(plain, sampling).map(({ tokens }) => tokens),
  );
  own.close();
  plain.close();
});

test('what was read to draft for a sequence is not read again when it moves to another slot', () => {
  let read = 0;
  const api = {
    ...library.api,
    llama_decode: (...args: Parameters<typeof library.api.llama_decode>) => {
      read += args[1].n_tokens;
      return library.api.llama_decode(...args);
    },
  };
  const spec = tinySpec({ ...base, draftFile: tinyFile });
  const opened = openModel(library, spec, () => true);
  const vocabulary = readVocabulary(library.api, opened.model);
  const draft = new DraftModel({ ...library, api }, { spec, vocabulary, contextTokens: 256 }, () => true);
  const tokens = vocabulary.tokenize('The sun is a star. '.repeat(12), {
    addSpecial: true,
    parseSpecial: true,
  });
  const propose = (slot: number, length: number) => {
    read = 0;
    const guesses = draft.propose({ slot, tokens: tokens.subarray(0, length), max: 1 });
    return { read, guesses };
  };
  assert.equal(propose(0, 40).read, 40);
  const [other, expected] = [propose(2, 30), propose(1, 43)];
  draft.moved(0, 2);
  assert.deepEqual(propose(2, 43), { read: 3, guesses: expected.guesses });
  assert.deepEqual(propose(0, 30), { read: 1, guesses: other.guesses });
  draft.close();
  closeModel(library.api, opened);
});

test('a draft model of another vocabulary, a recurrent one and a missing file are refused', () => {
  const mamba = join(folder, 'mamba.gguf');
  writeTinyMamba(mamba);
  const cases: [string, string, RegExp][] = [
    [mamba, 'invalid_request', /draft model of "cortex-tiny" cannot take tokens back/],
    [join(folder, 'none.gguf'), 'model_file_not_found', /none\.gguf/],
  ];
  const smol = join(process.env.CORTEX_TEST_MODELS ?? '', 'SmolLM2-135M-Instruct.Q4_1.gguf');
  if (existsSync(smol)) cases.push([smol, 'invalid_request', /has 49152 tokens and the model/]);
  for (const [draftFile, code, text] of cases) {
    assert.throws(
      () => engine.load(tinySpec({ ...base, speculation: 'ngram', draftFile })),
      (error) => error instanceof AppError && error.code === code && text.test(error.message),
    );
  }
});
