import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { families, readFixture } from './conversations.test.kit.ts';
import { detectFormat } from './format/detect-format.ts';
import { samples } from './format/families.test.kit.ts';

const page = readFileSync(new URL('../../../../docs/models.md', import.meta.url), 'utf8');

/** `family | models | render | ...` under their headings. */
function readTable(): Map<string, Map<string, string>> {
  const lines = page.split('\n').filter((line) => line.startsWith('|'));
  const cells = (line: string) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const [head = '', , ...rows] = lines.slice(
    0,
    lines.findIndex((line) => line.startsWith('| field')),
  );
  const columns = cells(head);
  return new Map(
    rows.map((row) => {
      const [family = '', ...rest] = cells(row);
      return [family.replaceAll('`', ''), new Map(rest.map((cell, at) => [columns[at + 1] ?? '', cell]))];
    }),
  );
}

/** The tests that there are: `${family}: column` in a source, for the families that it runs over. */
function namedTests(): Set<string> {
  const names = new Set<string>();
  const sampled = new Set(samples.map(({ family }) => family));
  const rendered = new Set(
    families.map((name) => {
      const texts = { chatTemplate: readFixture(`templates/${name}.jinja`), namedTemplates: {} };
      return detectFormat(texts, '').name;
    }),
  );
  for (const [folder, over] of [
    ['./', rendered],
    ['./format/', sampled],
  ] as const) {
    const url = new URL(folder, import.meta.url);
    for (const file of readdirSync(url).filter((each) => each.endsWith('.test.js'))) {
      const source = readFileSync(new URL(file, url), 'utf8');
      for (const [, column] of source.matchAll(/it\(`\$\{family\}: ([a-z ]+)`/g)) {
        for (const family of over) names.add(`${family}: ${column}`);
      }
    }
  }
  return names;
}

describe('docs/models.md', () => {
  const table = readTable();
  const tests = namedTests();

  it('says yes only where a test of that name is', () => {
    assert.ok(table.size >= 25);
    for (const [family, cells] of table) {
      for (const [column, cell] of cells) {
        if (column === 'models') continue;
        assert.ok(cell === 'yes' || cell === '–', `${family}, ${column}: ${cell}`);
        assert.equal(tests.has(`${family}: ${column}`), cell === 'yes', `${family}: ${column} is "${cell}"`);
      }
    }
  });

  it('has every family that is read', () => {
    for (const { family } of samples) assert.ok(table.has(family), family);
  });
});
