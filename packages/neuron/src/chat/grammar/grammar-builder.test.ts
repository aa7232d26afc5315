import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGrammarCache } from '../../engine/grammar/compiled-grammar.ts';
import type { GrammarState } from '../../engine/grammar/grammar-machine.ts';
import { createGrammarBuilder, type GrammarBuilder } from './grammar-builder.ts';

function accepts(builder: GrammarBuilder, text: string): boolean {
  const cache = createGrammarCache({
    size: 0,
    eogTokens: [],
    isEog: () => false,
    pieceOf: () => ({ bytes: new Uint8Array() }),
    tokenize: () => new Int32Array(),
  });
  const { machine } = cache.compile(builder.toString(), 'root');
  let state: GrammarState | null = machine.start;
  for (const byte of new TextEncoder().encode(text)) {
    state = machine.step(state, byte);
    if (state === null) return false;
  }
  return state.isEnd;
}

test('a literal matches its text alone, whatever characters it has', () => {
  for (const text of ['<tool_call>\n', '"quoted" \\ [x] ^-', 'é😀\u0000\u2028', '']) {
    const builder = createGrammarBuilder();
    builder.addRule('root', `${builder.literal(text)} "."`);
    assert.ok(accepts(builder, `${text}.`), JSON.stringify(text));
    assert.ok(!accepts(builder, `${text}x.`), JSON.stringify(text));
  }
});

test('textUntil stops before the first stop, also when stops overlap with themselves and each other', () => {
  const stops = ['</p>', 'aab', '<<x'];
  const builder = createGrammarBuilder();
  builder.addRule('root', `${builder.textUntil(stops)} ("</p>" | "aab" | "<<x")`);
  for (const text of ['', 'hello é\n', '<', '</', '<</', 'aaaa', '<<<', 'a</pp', 'aa<aab'.slice(0, 4)]) {
    for (const stop of stops) {
      const whole = text + stop;
      const first = Math.min(...stops.map((other) => whole.indexOf(other)).filter((at) => at >= 0));
      assert.equal(accepts(builder, whole), first === text.length, `${JSON.stringify(text)} + ${stop}`);
    }
    assert.ok(!accepts(builder, `${text}</p>more</p>`));
  }
});

test('rules of the same name stand beside each other, and schemas share what they have in common', () => {
  const builder = createGrammarBuilder();
  const first = builder.addRule('call', '"a"');
  const second = builder.addRule('call', '"b"');
  assert.notEqual(first, second);
  const schema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
  const one = builder.addSchema(schema, 'get_weather arguments');
  assert.equal(builder.addSchema(schema, 'other'), one);
  builder.addRule('root', `${first} ${one} ${second} ${one}`);
  assert.ok(accepts(builder, 'a{"n":1}b{ "n": 2}'));
  assert.ok(!accepts(builder, 'b{"n":1}a{"n":2}'));
});

test('schemas of several tools with references of their own do not mix', () => {
  const builder = createGrammarBuilder();
  const of = (type: string): unknown => ({
    type: 'object',
    properties: { v: { $ref: '#/$defs/v' } },
    required: ['v'],
    $defs: { v: { type } },
  });
  builder.addRule('root', `${builder.addSchema(of('null'))} ${builder.addSchema(of('boolean'))}`);
  assert.ok(accepts(builder, '{"v":null}{"v":true}'));
  assert.ok(!accepts(builder, '{"v":null}{"v":null}'));
});
