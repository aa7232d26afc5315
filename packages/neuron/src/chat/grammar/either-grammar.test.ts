import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { behindTexts, eitherGrammar } from './either-grammar.ts';

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
});

describe('behindTexts()', () => {
  it('puts one of the texts before the grammar', () => {
    assert.match(behindTexts(['<a>', 'b'], b).gbnf, /^behind ::= \("<a>" \| "b"\) a-calls\n/);
  });
});
