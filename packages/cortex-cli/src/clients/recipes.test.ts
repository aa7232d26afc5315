import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { exampleInput, exportLines } from './client-recipe.ts';
import { recipes } from './recipes.ts';

const page = readFileSync(new URL('../../../../docs/clients.md', import.meta.url), 'utf8');

test('docs/clients.md has each client, its notes, and exactly the lines that the program prints', () => {
  for (const { name, title, speaks, tried, notes, snippets } of recipes) {
    assert.ok(page.includes(`\n## ${title}\n`), title);
    const row = `| [${title}](#${anchorOf(title)}) | ${speaks} | ${tried} |\n`;
    assert.ok(page.includes(row), `no row ${row}`);
    for (const { language, text } of snippets(exampleInput)) {
      assert.ok(page.includes(`\n\`\`\`${language}\n${text}\n\`\`\`\n`), `${name}: docs/clients.md differs`);
    }
    for (const note of notes) assert.ok(page.includes(`- ${note}\n`), note);
  }
});

test('names are told apart, and a file in JSON is JSON whatever the model is called', () => {
  assert.equal(new Set(recipes.map(({ name }) => name)).size, recipes.length);
  const input = { ...exampleInput, model: 'org/a "b" \\c', context: null, output: null };
  for (const { snippets } of recipes) {
    for (const { language, text } of snippets(input)) if (language === 'json') JSON.parse(text);
  }
});

test('a value in a shell is what it was, whatever it holds', () => {
  assert.equal(
    exportLines({ A: "it's $HOME", B: 'plain/1.0', C: null }),
    "export A='it'\\''s $HOME'\nexport B=plain/1.0\nunset C",
  );
});

/** What a heading is linked by. */
function anchorOf(title: string): string {
  return title.toLowerCase().replaceAll(' ', '-');
}
