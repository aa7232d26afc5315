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

/** Families whose every template is this project's own, by the list beside the templates. */
function ownFamilies(): Set<string> {
  const rows = readFixture('README.md')
    .split('\n')
    .filter((line) => /^\| `.*\.jinja`/.test(line));
  const own = new Set<string>();
  const recorded = new Set<string>();
  for (const row of rows) {
    const [, files = '', from = ''] = row.split('|');
    for (const [, name = ''] of files.matchAll(/`([^`]+)\.jinja`/g)) {
      (from.includes('this project') ? own : recorded).add(familyOf(name));
    }
  }
  return new Set([...own].filter((family) => !recorded.has(family)));
}

function familyOf(template: string): string {
  const texts = { chatTemplate: readFixture(`templates/${template}.jinja`), namedTemplates: {} };
  return detectFormat(texts, '').name;
}

/** The tests that there are: `${family}: column` in a source, for the families that it runs over. */
function namedTests(): Set<string> {
  const names = new Set<string>();
  const sampled = new Set(samples.map(({ family }) => family));
  // a sample without a text is no test
  const thinking = new Set(samples.filter(({ reasoning }) => reasoning !== '').map(({ family }) => family));
  const rendered = new Set(families.map(familyOf));
  for (const [folder, over] of [
    ['./', rendered],
    ['./format/', sampled],
  ] as const) {
    const url = new URL(folder, import.meta.url);
    for (const file of readdirSync(url).filter((each) => each.endsWith('.test.js'))) {
      const source = readFileSync(new URL(file, url), 'utf8');
      for (const [, column] of source.matchAll(/it\(`\$\{family\}: ([a-z ]+)`/g)) {
        for (const family of over) {
          if (column !== 'reasoning' || thinking.has(family)) names.add(`${family}: ${column}`);
        }
      }
    }
  }
  return names;
}

describe('docs/models.md', () => {
  const table = readTable();
  const tests = namedTests();

  it('says yes only where a test of that name is, and where the template is our own', () => {
    assert.ok(table.size >= 25);
    const own = ownFamilies();
    for (const [family, cells] of table) {
      for (const [column, cell] of cells) {
        if (column === 'models') continue;
        const yes = column === 'render' && own.has(family) ? 'own' : 'yes';
        const expected = tests.has(`${family}: ${column}`) ? yes : '–';
        assert.equal(cell, expected, `${family}: ${column}`);
      }
    }
  });

  it('has every family that is read', () => {
    for (const { family } of samples) assert.ok(table.has(family), family);
  });
});
