import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createGrammarCache } from '../../engine/grammar/compiled-grammar.ts';
import type { GrammarState } from '../../engine/grammar/grammar-machine.ts';
import { toCallGrammar } from '../format/call-grammar.ts';
import { formatOf } from '../format/format.test.kit.ts';
import { behindTexts, eitherGrammar } from './either-grammar.ts';
import { toResponseGrammar } from './response-grammar.ts';

/** Grammars without tokens in them need none. */
const vocabulary = {
  size: 0,
  eogTokens: [],
  isEog: () => false,
  pieceOf: () => ({ bytes: new Uint8Array() }),
  tokenize: () => new Int32Array(),
};
const a = { gbnf: 'root ::= "root" item{1,3} [a-z"\\]] # root item\nitem ::= "x"', root: 'root' };
const b = { gbnf: 'calls ::= item | "\\"item"\nitem ::= "y"', root: 'calls' };

describe('eitherGrammar()', () => {
  it('keeps rules of one name apart, and strings, classes, counts and comments as they are', () => {
    assert.deepEqual(eitherGrammar(a, b), {
      gbnf: [
        'either ::= a-root | b-calls',
        'a-root ::= "root" a-item{1,3} [a-z"\\]] # root item',
        'a-item ::= "x"',
        'b-calls ::= b-item | "\\"item"',
        'b-item ::= "y"',
      ].join('\n'),
      root: 'either',
    });
  });

  it('is a grammar also when both halves have optional values, whose rules are called by numbers', () => {
    const optional = (...types: string[]) => ({ anyOf: types.map((type) => ({ type })) });
    const schema = {
      type: 'object',
      properties: { a: optional('integer', 'null'), b: optional('string', 'null', 'boolean') },
    };
    const answer = toResponseGrammar({ type: 'json_schema', json_schema: { name: 'answer', schema } });
    const calls = toCallGrammar(formatOf('{{ tools }}<tool_call>'), [{ name: 'f', parameters: schema }], {
      choice: 'required',
      parallel: true,
    });
    assert.ok(answer !== null && calls !== null);
    assert.match(answer.gbnf, /^1 ::= /m, 'the case is there');
    const { gbnf, root = 'root' } = eitherGrammar(answer, calls);
    const { machine } = createGrammarCache(vocabulary).compile(gbnf, root);
    const isWhole = (text: string): boolean => {
      const bytes = [...new TextEncoder().encode(text)];
      const end = bytes.reduce(
        (at, byte) => at && machine.step(at, byte),
        machine.start as GrammarState | null,
      );
      return end?.isEnd ?? false;
    };
    assert.ok(isWhole('{"a": null, "b": true}'));
    assert.ok(isWhole('<tool_call>\n{"name": "f", "arguments": {"a": 3, "b": null}}\n</tool_call>'));
    assert.ok(!isWhole('{"a": true}'));
  });
});

describe('behindTexts()', () => {
  it('puts one of the texts before the grammar', () => {
    assert.match(behindTexts(['<a>', 'b'], b).gbnf, /^behind ::= \("<a>" \| "b"\) a-calls\n/);
  });
});
