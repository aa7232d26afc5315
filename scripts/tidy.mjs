/**
 * The house rules as one program.
 *
 * Problem: rules that live only in a document erode, and a checker that silently looks at nothing is worse
 *          than none.
 * Design:  every rule is a function of the file map (path -> text), so that tidy.test.mjs can plant a fault
 *          per rule. Source is cut into tokens once; strings, comments, templates and regular expressions
 *          cannot be mistaken for code. Questions about types belong to Biome and tsc, not here.
 * Limits:  a function is measured from its parameter list to its closing brace, nested functions included.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { toFunctions, toTokens } from './tidy-tokens.mjs';

const fileLinesMax = 400;
const functionLinesMax = 70;
const lineLengthMax = 110;

const core = ['cortex-core'];
const wire = ['cortex-core/wire'];
const pure = { pure: true };

/**
 * The import table: path below packages/ without src -> what it may import besides itself. The longest
 * matching row decides; a row covers the folders below it that have none. `'*'` means anything of ours.
 * `pure` forbids node:* as well.
 */
export const importTable = {
  'cortex-core/wire': { may: [], ...pure },
  'cortex-core/config': { may: core },
  'cortex-core/daemon': { may: core },
  'cortex-gateway/gateway.ts': { may: [...core, 'cortex-gateway'] },
  'cortex-gateway/live-config.ts': { may: core },
  'cortex-gateway/provider-parts.ts': { may: [...core, 'cortex-gateway'] },
  'cortex-gateway/http': {
    may: [...core, 'cortex-gateway/dialects', 'cortex-gateway/quota', 'cortex-gateway/fleet'],
  },
  'cortex-gateway/dialects': { may: wire, ...pure },
  'cortex-gateway/quota': { may: core },
  'cortex-gateway/fleet': { may: [...core, 'cortex-gateway/decide', 'cortex-gateway/upstream'] },
  'cortex-gateway/decide': { may: wire, ...pure },
  'cortex-gateway/simulate': { may: [...wire, 'cortex-gateway/decide'], ...pure },
  'cortex-gateway/upstream': { may: core },
  'neuron/neuron.ts': { may: [...core, 'neuron'] },
  'neuron/live-config.ts': { may: core },
  'neuron/machine.ts': { may: [...core, 'neuron'] },
  'neuron/api': {
    may: [...core, 'neuron/admission', 'neuron/chat', 'neuron/models', 'neuron/device'],
  },
  'neuron/admission': { may: core },
  'neuron/chat': { may: wire, ...pure },
  'neuron/models': { may: [...core, 'neuron/device', 'neuron/chat'] },
  'neuron/device': { may: core },
  'neuron/device/thread-transport.ts': { may: [...core, 'neuron/device', 'neuron/engine'], optional: true },
  'neuron/device/owner': { may: [...core, 'neuron/device/jobs', 'neuron/engine'] },
  'neuron/engine': { may: [...wire, 'neuron/libllama', 'neuron/engine/grammar'] },
  'neuron/engine/grammar': { may: wire, ...pure },
  'neuron/libllama': { may: wire },
  'cortex-cli': {
    may: [
      ...core,
      'cortex-gateway/gateway.ts',
      'cortex-gateway/simulate',
      'neuron/neuron.ts',
      'neuron/machine.ts',
    ],
  },
  testkit: { may: core },
  e2e: { may: ['*'] },
};

/** Every fault in the file map, sorted by path and line. An empty map is itself a fault. */
export function checkAll(files, table = importTable) {
  const sources = [...files].filter(([path]) => isSource(path)).map(([path, text]) => toSource(path, text));
  const faults = [
    ...checkSeen(files, sources),
    ...checkTable(files, table),
    ...[...files].flatMap(([path, text]) => [
      ...checkNames(path),
      ...checkPaths(path, text),
      ...checkLock(path, text),
    ]),
    ...sources.flatMap((source) => [
      ...checkImports(source, files, table),
      ...checkSize(source),
      ...checkFunctions(source),
      ...checkSyntax(source),
      ...checkSleeps(source),
    ]),
  ];
  return faults.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.line - b.line));
}

function fault(path, line, rule, message) {
  return { path, line, rule, message };
}

function isSource(path) {
  return /^(packages|scripts|bench)\/.*\.(ts|mts|js|mjs)$/.test(path);
}

function toSource(path, text) {
  return {
    path,
    text,
    tokens: toTokens(text),
    isTest: /\.test\.(kit\.)?(ts|mjs)$/.test(path),
    isGenerated: /\.gen\.ts$/.test(path),
  };
}

function checkSeen(files, sources) {
  if (files.size === 0) return [fault('.', 1, 'no-files', 'saw no files at all')];
  return sources.length === 0 ? [fault('.', 1, 'no-files', 'saw no source files')] : [];
}

/** `packages/neuron/src/engine/batch.ts` -> `neuron/engine/batch.ts`; undefined outside packages/x/src. */
function toUnit(path) {
  const match = /^packages\/([^/]+)\/src\/(.+)$/.exec(path);
  return match ? `${match[1]}/${match[2]}` : undefined;
}

function isWithin(unit, row) {
  return unit === row || unit.startsWith(`${row}/`) || unit === `${row}.ts`;
}

function findRow(unit, table) {
  return longestRow(unit, Object.keys(table));
}

/** As findRow, but never a row that is one file. */
function findFolder(unit, table) {
  return longestRow(
    unit,
    Object.keys(table).filter((row) => !row.endsWith('.ts')),
  );
}

function longestRow(unit, rows) {
  return rows.filter((row) => isWithin(unit, row)).sort((a, b) => b.length - a.length)[0];
}

function checkTable(files, table) {
  const units = [...files.keys()]
    .filter((path) => path.endsWith('.ts'))
    .flatMap((path) => toUnit(path) ?? []);
  const gone = Object.entries(table)
    .filter(([row, rule]) => !rule.optional && !units.some((unit) => isWithin(unit, row)))
    .map(([row]) => fault('scripts/tidy.mjs', 1, 'row-gone', `no file under ${row}, which has a row`));
  const bare = units
    .filter((unit) => findRow(unit, table) === undefined)
    .map((unit) =>
      fault(`packages/${unit.replace('/', '/src/')}`, 1, 'no-row', 'no row of the import table covers it'),
    );
  return [...gone, ...bare];
}

function checkImports(source, files, table) {
  const unit = toUnit(source.path);
  const row = unit && findRow(unit, table);
  if (row === undefined) return [];
  return toSpecifiers(source.tokens).flatMap(({ specifier, line }) => {
    if (specifier.startsWith('node:')) {
      if (!table[row].pure || source.isTest) return [];
      return [fault(source.path, line, 'import', `${row} is pure and may not import ${specifier}`)];
    }
    const target = toTarget(source.path, specifier, files);
    if (target === undefined || mayImport(unit, row, target, source.isTest, table)) return [];
    return [fault(source.path, line, 'import', `${row} may not import ${target}`)];
  });
}

function mayImport(unit, row, target, isTest, table) {
  const [home, owner] = [unit.split('/')[0], target.split('/')[0]];
  const { may } = table[row];
  if (may.includes('*') || (isTest && (owner === home || owner === 'testkit'))) return true;
  const folder = findFolder(target, table) ?? owner;
  if (folder === (findFolder(unit, table) ?? home)) return true;
  // A row below another one is not part of it: whoever may import neuron/device may not import its owner/.
  return may.some((name) => isWithin(target, name) && (!name.includes('/') || isWithin(name, folder)));
}

/** What a specifier names (`neuron/engine/batch.ts`); undefined when it is none of ours. */
function toTarget(path, specifier, files) {
  if (specifier.endsWith('.json')) return undefined;
  if (specifier.startsWith('.')) {
    const joined = posix.normalize(posix.join(posix.dirname(path), specifier));
    return toUnit(joined) ?? joined;
  }
  const [name, ...rest] = specifier.split('/');
  const isOurs = [...files.keys()].some((file) => file.startsWith(`packages/${name}/`));
  if (!isOurs) return undefined;
  return rest.length === 0 ? name : `${name}/${rest.join('/').replace(/\.(js|ts)$/, '')}.ts`;
}

function toSpecifiers(tokens) {
  return tokens.flatMap((token, i) => {
    if (token.kind !== 'string') return [];
    const before = tokens[i - 1]?.text;
    const isDynamic = before === '(' && tokens[i - 2]?.text === 'import';
    if (before !== 'from' && before !== 'import' && !isDynamic) return [];
    return [{ specifier: token.text.slice(1, -1), line: token.line }];
  });
}

function checkSize({ path, text, isTest, isGenerated }) {
  if (isTest || isGenerated) return [];
  const lines = text.replace(/\n$/, '').split('\n');
  const long = lines.flatMap((line, i) =>
    line.length > lineLengthMax
      ? [fault(path, i + 1, 'line-length', `${line.length} characters, at most ${lineLengthMax}`)]
      : [],
  );
  if (lines.length <= fileLinesMax) return long;
  return [
    ...long,
    fault(path, fileLinesMax + 1, 'file-length', `${lines.length} lines, at most ${fileLinesMax}`),
  ];
}

function checkFunctions({ path, tokens, isTest, isGenerated }) {
  if (isTest || isGenerated) return [];
  return toFunctions(tokens)
    .filter(({ start, end }) => end - start + 1 > functionLinesMax)
    .map(({ start, end }) =>
      fault(path, start, 'function-length', `${end - start + 1} lines, at most ${functionLinesMax}`),
    );
}

function checkNames(path) {
  if (path.startsWith('models/')) return [];
  const vague = path
    .split('/')
    .find((part) => /(^|[-_.])(utils?|helpers?|common|managers?)($|[-_.])/i.test(part));
  const faults = vague ? [fault(path, 1, 'vague-name', `"${vague}" says nothing; name what it is`)] : [];
  if (!isSource(path)) return faults;
  const crooked = path.split('/').find((part) => !/^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+)*$/.test(part));
  return crooked ? [...faults, fault(path, 1, 'kebab-case', `"${crooked}" is not kebab-case`)] : faults;
}

function checkSyntax({ path, tokens }) {
  return tokens.flatMap(({ text, kind, line }, i) => {
    const [before, next, after] = [tokens[i - 1], tokens[i + 1], tokens[i + 2]];
    if (kind !== 'word' || before?.text === '.') return [];
    if (
      text === 'default' &&
      (before?.text === 'export' || (before?.text === 'as' && isExported(tokens, i)))
    ) {
      return [fault(path, line, 'named-exports', 'default export; export by name')];
    }
    const opens = after?.text === '{' || after?.text === '.';
    if (text === 'enum' && next?.kind === 'word' && after?.text === '{') {
      return [fault(path, line, 'no-enum', 'enum; use a union of literals')];
    }
    if ((text === 'namespace' || text === 'module') && next?.kind === 'word' && opens) {
      return [fault(path, line, 'no-namespace', 'namespace; a file is the namespace')];
    }
    return [];
  });
}

function isExported(tokens, i) {
  let at = i;
  while (at >= 0 && tokens[at].text !== '{' && tokens[at].text !== ';') at--;
  return tokens[at]?.text === '{' && tokens[at - 1]?.text === 'export';
}

function checkSleeps({ path, tokens, isTest }) {
  if (!isTest) return [];
  return tokens.flatMap(({ text, kind, line }, i) => {
    if (kind !== 'word' || tokens[i + 1]?.text !== '(') return [];
    const isAwaited = tokens[i - 1]?.text === 'await' && /^(sleep|delay|setTimeout)$/.test(text);
    const resolves = text === 'setTimeout' && /^(r|res|resolve|done|ok)$/.test(tokens[i + 2]?.text ?? '');
    if (!isAwaited && !resolves) return [];
    return [fault(path, line, 'no-sleep', 'a test that sleeps; use a fake clock or wait for the event')];
  });
}

function checkLock(path, text) {
  if (path !== 'package-lock.json') return [];
  return text
    .split('\n')
    .flatMap((line, i) =>
      /"resolved":\s*"https?:/.test(line)
        ? [
            fault(
              path,
              i + 1,
              'lock-host',
              'names a registry host; npm install with omit-lockfile-registry-resolved',
            ),
          ]
        : [],
    );
}

/** A path of the machine it was written on; in two parts, so that this file does not hold one. */
const localPath = new RegExp(`(^|[^\\w.:/~$})-]|file://)/${'work'}/`);

function checkPaths(path, text) {
  return text
    .split('\n')
    .flatMap((line, i) =>
      localPath.test(line) ? [fault(path, i + 1, 'local-path', 'names a path of one machine')] : [],
    );
}

/** What git tracks or would track; without git, everything but what is built or installed. */
export function listFiles(root) {
  const isText = (path) => !/\.(gguf|bin|png|jpg|gz|zip|woff2?)$/.test(path);
  const paths = existsSync(join(root, '.git'))
    ? execFileSync('git', ['ls-files', '-coz', '--exclude-standard'], { cwd: root, encoding: 'utf8' }).split(
        '\0',
      )
    : readdirSync(root, { recursive: true }).filter(
        (path) => !/(^|\/)(node_modules|dist|\.git)(\/|$)/.test(path),
      );
  const isFile = (path) => lstatSync(join(root, path), { throwIfNoEntry: false })?.isFile();
  return new Map(
    [...new Set(paths)]
      .filter((path) => path !== '' && isText(path) && isFile(path))
      .map((path) => [path, readFileSync(join(root, path), 'utf8')]),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = listFiles(fileURLToPath(new URL('..', import.meta.url)));
  const faults = checkAll(files);
  for (const { path, line, rule, message } of faults) console.log(`${path}:${line} ${rule}: ${message}`);
  if (faults.length > 0) process.exitCode = 1;
  else console.log(`tidy: ${files.size} files keep the house rules`);
}
