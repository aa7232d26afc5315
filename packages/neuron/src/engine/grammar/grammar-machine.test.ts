import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { loadLibrary } from '../../libllama/load-library.ts';
import { allocateNative } from '../../libllama/native-memory.ts';
import { tinyFile } from '../engine.test.kit.ts';
import { readVocabulary } from '../vocabulary.ts';
import { type CompiledGrammar, createGrammarCache } from './compiled-grammar.ts';
import type { GrammarState } from './grammar-machine.ts';

const { api } = loadLibrary({ nativeLog: false });
const modelParams = api.llama_model_default_params();
const native = api.llama_model_load_from_file(tinyFile, { ...modelParams, vocab_only: true }) as bigint;
const vocabulary = readVocabulary(api, native);
const cache = createGrammarCache(vocabulary);
after(() => api.llama_model_free(native));

function read(grammar: CompiledGrammar, text: string): GrammarState | null {
  let state: GrammarState | null = grammar.machine.start;
  for (const byte of new TextEncoder().encode(text)) {
    state = grammar.machine.step(state, byte);
    if (state === null) return null;
  }
  return state;
}

function accepts(gbnf: string, text: string): boolean {
  return read(cache.compile(gbnf, 'root'), text)?.isEnd === true;
}

test('every form of GBNF means what its manual says', () => {
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['root ::= "a" | "b" "c"', ['a', 'bc'], ['', 'b', 'abc']],
    ['root ::= [a-c] [^a-c] .', ['axé', 'b-\n'], ['aaa', 'dx.', 'ax']],
    ['root ::= "x"* "y"+ "z"?', ['y', 'xxyyz'], ['x', 'xz', 'yzz']],
    ['root ::= "x"{2} "y"{1,} "z"{0,2}', ['xxy', 'xxyyyzz'], ['xy', 'xxyzzz', 'xx']],
    ['root ::= ("a" | "b" (\n "c" # why\n | "d"\n))+', ['a', 'bcbda'], ['b', 'c']],
    ['root ::= pair\npair ::= "(" pair? ")"', ['()', '((()))'], ['(', '())']],
    ['root ::= "\\x41\\u00e9\\U0001F600\\n\\t\\r\\"\\\\\\[\\]\\-"', ['Aé😀\n\t\r"\\[]-'], ['A']],
    ['root ::= [\\-a\\]^]+', ['-a]^'], ['b', '\\']],
    ['root ::= [é-ü€😀-😅]', ['é', 'ö', '€', '😂'], ['e', 'ý', '😆']],
    ['root ::= [^\\x00-\\x7f]', ['é', '😀'], ['a', '']],
    ['root ::= ""', [''], ['a']],
    ['# a comment\nroot ::= a # another\na ::=\n  "x" |\n  "y"\n', ['x', 'y'], ['xy']],
    ['root ::= (("a"?)* "b"?)* "c"', ['c', 'abac', 'bbc'], ['ab', 'ca']],
  ];
  for (const [gbnf, good, bad] of cases) {
    for (const text of good) assert.ok(accepts(gbnf, text), `${gbnf} should accept ${JSON.stringify(text)}`);
    for (const text of bad) assert.ok(!accepts(gbnf, text), `${gbnf} should refuse ${JSON.stringify(text)}`);
  }
});

test('bounded repetitions count exactly, also large ones', () => {
  for (const [min, max] of [
    [0, 3],
    [3, 3],
    [255, 257],
    [500, 513],
    [0, 1500],
    [1200, 2600],
  ] as const) {
    const gbnf = `root ::= ("a" | "é"){${min},${max}} "."`;
    for (const count of new Set([0, min - 1, min, min + 1, max - 1, max, max + 1])) {
      if (count < 0) continue;
      const text = `${'aé'.repeat(count).slice(0, count)}.`;
      assert.equal(accepts(gbnf, text), count >= min && count <= max, `${count} of {${min},${max}}`);
    }
  }
});

test('tokens are taken by name, by number, and by what they are not', () => {
  const end = vocabulary.tokenize('<|im_end|>', { addSpecial: false, parseSpecial: true })[0] as number;
  const start = vocabulary.tokenize('<|im_start|>', { addSpecial: false, parseSpecial: true })[0] as number;
  const { machine, maskOf } = cache.compile(`root ::= <|im_start|> !<[${start}]> "a" | "ab"`, 'root');
  assert.ok(maskOf(machine.start).count < 10);
  const bytesOf = (token: number): Uint8Array => vocabulary.pieceOf(token).bytes;
  const second = machine.stepToken(machine.start, start, bytesOf(start));
  assert.ok(second !== null);
  assert.equal(machine.stepToken(second, start, bytesOf(start)), null);
  assert.ok(machine.stepToken(second, end, bytesOf(end)) !== null);
  assert.equal(maskOf(second).count, vocabulary.size - 1);
});

test('a grammar that is wrong is refused with its line, however large it is', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['', 'root'],
    ['root ::= "a', 'line 1'],
    ['root ::= "a"\nx = "b"', 'line 2'],
    ['root ::= "a"\n\nroot ::= "b"', 'line 3'],
    ['root ::= [a', 'line 1'],
    ['root ::= [z-a]', 'range'],
    ['root ::= )', 'line 1'],
    ['root ::= *', 'nothing'],
    ['root ::= "\\q"', '\\q'],
    ['root ::= "\\x4"', 'hex'],
    ['root ::= "\\UFFFFFFFF"', 'hex'],
    ['root ::= "a"{x}', 'repetition'],
    ['root ::= "a"{3,2}', 'repetition'],
    ['root ::= "a"{99999999999999999999}', 'repeats more'],
    ['root ::= <no such token>', 'token'],
    ['root ::= missing', 'missing'],
    ['root ::= root "a" | "b"', 'begins with itself'],
    ['root ::= a\na ::= "x"? b\nb ::= a "y" | "z"', 'begins with itself'],
    ['root ::= "a" root', 'never end'],
    ['root ::= a\na ::= "(" b ")"\nb ::= "[" a "]"', 'never end'],
    [`root ::= ${'('.repeat(100_000)}`, 'deeper'],
    [`root ::= ${'('.repeat(100_000)}"a"${')'.repeat(100_000)}`, 'deeper'],
    [`root ::= ${'"a" | '.repeat(100_000)}"b"`, 'ways'],
    [`root ::= ${'('.repeat(9)}"a"${'{1,900})'.repeat(9)}"b"{1000000}"c"{1000000}`, ''],
    [
      `root ::= ${'a '.repeat(1000)}\na ::= ${'b? '.repeat(1000)}\nb ::= ${'c? '.repeat(1000)}\nc ::= root`,
      '',
    ],
  ];
  for (const [gbnf, part] of cases) {
    assert.throws(
      () => {
        cache.compile(gbnf, 'root');
        if (part === '') throw new AppError('invalid_request', 'compiled', { param: 'grammar' });
      },
      (error: unknown) => {
        assert.ok(error instanceof AppError, String(error));
        assert.equal(error.param, 'grammar', `${gbnf.slice(0, 60)}: ${error.message}`);
        assert.ok(error.message.includes(part), `${gbnf.slice(0, 60)}: ${error.message}`);
        assert.ok(error.message.length < 300);
        return true;
      },
    );
  }
});

test('a grammar that makes every text a state of its own costs an error, not the machine', () => {
  const letters = 'abcdefghijklmnopqrstuvwxyz';
  const same = [...letters].map((letter) => `"${letter}"`).join(' | ');
  const marks = [...letters].map((letter) => `(${same})* "${letter}" (${same}){900}`).join(' | ');
  const { machine, maskOf } = cache.compile(`root ::= ${marks}`, 'root');
  assert.throws(
    () => maskOf(machine.start),
    (error: AppError) => error.code === 'job_failed',
  );
});

test("the mask is libllama's own, token for token, along random answers", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  const random = createRandom(seed);
  const grammars = [
    'root ::= "{" ws "\\"name\\":" ws string ("," ws "\\"age\\":" ws [0-9]{1,3})? ws "}"\n' +
      'string ::= "\\"" ([^"\\\\\\x00-\\x1f] | "\\\\" ["\\\\/bfnrt]){0,12} "\\""\nws ::= " "?',
    'root ::= (expr "=" [0-9]+ "\\n"){1,3}\nexpr ::= term ([-+*/] term)*\nterm ::= [a-z] | "(" expr ")"',
    'root ::= [a-zà-ü€]{3,9} | "yes" | "no" " "{2,} [^y]',
    'root ::= (("ab" | "a") ("b" | "bc")?)+ .',
  ];
  for (const gbnf of grammars) {
    for (let answer = 0; answer < 4; answer++) compareMasks(gbnf, random, `SEED=${seed} ${gbnf}`);
  }
});

/** Follows one answer of random allowed tokens in both machines and compares what each allows. */
function compareMasks(gbnf: string, random: () => number, note: string): void {
  const { machine, maskOf } = cache.compile(gbnf, 'root');
  const sampler = api.llama_sampler_init_grammar(vocabulary.address, gbnf, 'root') as bigint;
  let state = machine.start;
  for (let step = 0; step < 25; step++) {
    const theirs = nativeMask(sampler);
    const ours = maskOf(state);
    const allowed: number[] = [];
    for (let token = 0; token < vocabulary.size; token++) {
      const isOurs = ((ours.bits[token >> 5] as number) & (1 << (token & 31))) !== 0;
      if (isOurs) allowed.push(token);
      // libllama lets a token end inside a character that UTF-8 has no place for; we look at each byte.
      if (vocabulary.pieceOf(token).text === null) continue;
      assert.equal(
        isOurs,
        theirs[token],
        `${note} step ${step} token ${JSON.stringify(vocabulary.pieceOf(token).text)}`,
      );
    }
    const words = allowed.filter(
      (token) => !vocabulary.isEog(token) && vocabulary.pieceOf(token).text !== null,
    );
    if (words.length === 0) break;
    const chosen = words[Math.floor(random() * words.length)] as number;
    api.llama_sampler_accept(sampler, chosen);
    const next = machine.stepToken(state, chosen, vocabulary.pieceOf(chosen).bytes);
    assert.ok(next !== null);
    state = next;
  }
  api.llama_sampler_free(sampler);
}

function nativeMask(sampler: bigint): boolean[] {
  const { size } = vocabulary;
  const memory = allocateNative(32 + size * 12);
  const words = new BigUint64Array(memory.buffer, 0, 4);
  words.set([memory.address + 32n, BigInt(size), BigInt.asUintN(64, -1n), 0n]);
  const ids = new Int32Array(memory.buffer, 32);
  const logits = new Float32Array(memory.buffer, 32);
  for (let token = 0; token < size; token++) {
    ids[token * 3] = token;
    logits[token * 3 + 1] = 1;
  }
  api.llama_sampler_apply(sampler, memory.address);
  const mask = Array.from({ length: size }, (_, token) => logits[token * 3 + 1] === 1);
  memory.close();
  return mask;
}

/** mulberry32 */
function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
