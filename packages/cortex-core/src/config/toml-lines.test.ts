import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { type KeyPath, pathId } from './key-path.ts';
import { findTomlLines } from './toml-lines.ts';

const document = `# comment = 1
title = "a # b" # c
multi = """
x = 1
[no]
\\""" still
"""
after_multi = '''
[no]
'''
"quoted.key".inner = 1
'lit "x"' = [
  1, # one ]
  { a = 1, b.c = [ "]" , 2 ] },
]
[table]
date = 1979-05-27 07:32:00
[ table . "sub \\u0061" ]
x = -1.5e3
[[list]]
n = 1
[list.child]
m = 1
[[list.deep]]
d = 1
[[list.deep]]
d = 2

[[list]]
n = 2
[[list.deep]]
d = 3
last = """a""""
end = true`;

const expected: readonly (readonly [KeyPath, number])[] = [
  [['title'], 2],
  [['multi'], 3],
  [['after_multi'], 8],
  [['quoted.key', 'inner'], 11],
  [['lit "x"'], 12],
  [['lit "x"', 0], 13],
  [['lit "x"', 1, 'a'], 14],
  [['lit "x"', 1, 'b', 'c', 1], 14],
  [['table'], 16],
  [['table', 'date'], 17],
  [['table', 'sub a', 'x'], 19],
  [['list'], 20],
  [['list', 0, 'n'], 21],
  [['list', 0, 'child', 'm'], 23],
  [['list', 0, 'deep', 0, 'd'], 25],
  [['list', 0, 'deep', 1, 'd'], 27],
  [['list', 1], 29],
  [['list', 1, 'n'], 30],
  [['list', 1, 'deep', 0, 'd'], 32],
  [['list', 1, 'deep', 0, 'end'], 34],
];

for (const [name, text] of [
  ['LF', document],
  ['CRLF', document.replaceAll('\n', '\r\n')],
] as const) {
  test(`findTomlLines() finds every key, ${name}`, () => {
    const lines = findTomlLines(text);
    for (const [path, line] of expected) assert.equal(lines.get(pathId(path)), line, pathId(path));
  });

  test(`findTomlLines() knows exactly the paths that the parser gives, ${name}`, () => {
    const parsed: string[] = [];
    const visit = (value: unknown, path: KeyPath): void => {
      if (path.length > 0) parsed.push(pathId(path));
      if (Array.isArray(value)) {
        for (const [index, each] of value.entries()) visit(each, [...path, index]);
      } else if (typeof value === 'object' && value !== null && !(value instanceof Date)) {
        for (const [key, each] of Object.entries(value)) visit(each, [...path, key]);
      }
    };
    visit(parse(text), []);
    assert.deepEqual([...findTomlLines(text).keys()].sort(), parsed.sort());
  });
}

test('findTomlLines() ends on any prefix of a document', () => {
  for (let length = 0; length <= document.length; length++) findTomlLines(document.slice(0, length));
});
