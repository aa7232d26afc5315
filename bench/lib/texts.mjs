/** Generated input: the same numbers give the same text, another seed shares no long prefix. */
const words =
  'river stone window garden paper morning engine letter number silver mountain bridge question winter ' +
  'table market summer island yellow doctor signal forest circle travel answer village music corner ' +
  'captain harbour';
const list = words.split(' ');

function createRandom(seed) {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** About 1.1 tokens a word for SmolLM2. */
export function prose(seed, count) {
  const random = createRandom(seed);
  return Array.from({ length: count }, () => list[Math.floor(random() * list.length)]).join(' ');
}

/** A source file in its `edit`-th version: one line differs from the version before. */
function sourceFile(edit) {
  const lines = ['export class Basket {', '  #items = [];', '  #limit = 100;', ''];
  for (const [at, name] of ['add', 'remove', 'count', 'price', 'clear', 'find'].entries()) {
    const value = edit > at ? edit - at : 0;
    lines.push(`  ${name}(item) {`, `    const offset = ${value};`);
    lines.push(`    return this.#items.${name}(item, offset);`, '  }', '');
  }
  return [...lines, '}'].join('\n');
}

export const agentSystem =
  'You are a coding agent. You change files by tools and answer with the whole changed file.\n\n' +
  ['read_file', 'write_file', 'list_files', 'run_tests', 'search']
    .map((name) => `## ${name}\nArguments: path (string), text (string). ${prose(name.length * 31, 40)}.`)
    .join('\n\n');

/** What is sent in each turn; answers are put between by whoever replays. */
export function agentTurns(count) {
  return Array.from({ length: count }, (_, turn) => {
    const tool =
      turn % 2 === 0
        ? `Result of read_file("src/basket.js"):\n\`\`\`js\n${sourceFile(turn)}\n\`\`\``
        : `Result of run_tests: 12 passed, ${turn} failed.\n${prose(turn + 500, 60)}`;
    const wish = `Set offset to ${turn + 1} in one more method. Repeat the file src/basket.js with it.`;
    return { role: 'user', content: `${tool}\n${wish}` };
  });
}
