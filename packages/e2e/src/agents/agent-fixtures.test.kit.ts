/**
 * Recorded requests of real agents, in fixtures/agents/. What they say is shortened, for it is theirs and long:
 * a text beyond `textMax` characters keeps its beginning. Structure, names, schemas and order are as they came;
 * folders, ids and keys of the machine are replaced. Tools are kept once.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { RecordedCall } from './scripted-stack.test.kit.ts';

const folder = fileURLToPath(new URL('../../fixtures/agents/', import.meta.url));
const textMax = 160;
const kept = /^(content-type|accept|anthropic-|openai-|x-app$|originator$)/;

export interface AgentFixture {
  readonly agent: string;
  /** The client's own word on its version. */
  readonly userAgent: string;
  readonly requests: readonly {
    readonly path: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly body: AgentBody;
  }[];
}

export interface AgentBody {
  readonly model: string;
  readonly tools?: readonly object[];
  readonly [field: string]: unknown;
}

/** In the place of tools that are those of an earlier request. */
const sameTools = 'as before';

export interface Places {
  readonly home: string;
  readonly project: string;
}

export function readFixtures(): readonly AgentFixture[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => withTools(JSON.parse(readFileSync(`${folder}${name}`, 'utf8')) as AgentFixture));
}

function withTools(fixture: AgentFixture): AgentFixture {
  const tools = fixture.requests.flatMap(({ body }) => (Array.isArray(body.tools) ? [body.tools] : []))[0];
  const requests = fixture.requests.map((request) =>
    (request.body.tools as unknown) === sameTools
      ? { ...request, body: { ...request.body, tools } }
      : request,
  );
  return { ...fixture, requests } as AgentFixture;
}

export function recordFixture(agent: string, calls: readonly RecordedCall[], places: Places): void {
  const posts = calls.filter(({ method }) => method === 'POST');
  const seen = new Set<string>();
  const onceOnly = (body: AgentBody): AgentBody => {
    const tools = JSON.stringify(body.tools);
    if (tools === undefined || !seen.has(tools)) {
      if (tools !== undefined) seen.add(tools);
      return body;
    }
    return { ...body, tools: sameTools as never };
  };
  const fixture: AgentFixture = {
    agent,
    userAgent: String(posts[0]?.headers['user-agent'] ?? '').replace(/ \(.*/, ''),
    requests: posts.map(({ path, headers, body }) => ({
      path,
      headers: Object.fromEntries(
        Object.entries(headers).flatMap(([name, value]) =>
          kept.test(name) && typeof value === 'string' ? [[name, value]] : [],
        ),
      ),
      body: onceOnly(shorten(JSON.parse(body), places) as AgentBody),
    })),
  };
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${agent}.json`, `${JSON.stringify(fixture, null, 1)}\n`);
}

function shorten(value: unknown, places: Places): unknown {
  if (typeof value === 'string') return shortenText(value, places);
  if (Array.isArray(value)) return value.map((each) => shorten(each, places));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) =>
      // prose about a parameter is nothing that a dialect looks at
      name === 'description' && typeof each === 'string'
        ? [name, shortenText(each, places).slice(0, 40)]
        : [name, shorten(each, places)],
    ),
  );
}

function shortenText(text: string, { home, project }: Places): string {
  const plain = text
    .replaceAll(project, '/home/dev/app')
    .replaceAll(home, '/home/dev')
    .replaceAll(/\b[0-9a-f]{64}\b/g, '0'.repeat(64))
    .replaceAll(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, zeroId);
  // arguments and results of tools are JSON or short; a cut would change what they are
  if (plain.length <= textMax || isJson(plain)) return plain;
  return `${plain.slice(0, textMax)} [${plain.length - textMax} characters cut]`;
}

const zeroId = '00000000-0000-4000-8000-000000000000';

function isJson(text: string): boolean {
  if (!/^[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
