/**
 * Every client dialect over every kind of upstream that it can meet: answers replayed whole, byte by byte,
 * cut at every byte and all at once. CORTEX_UPDATE_GOLDEN=1 writes what clients get to golden/.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { toAppError } from 'cortex-core/wire/errors';
import { SeededRandom } from 'testkit/seeded-random';
import {
  type Frame,
  nothingSaid,
  type Said,
  type Script,
  saidWithin,
  scripts,
  toFrames,
  type UpstreamForm,
} from './answer-scripts.test.kit.ts';
import { type ClientForm, clientForms } from './client-forms.test.kit.ts';
import type { StreamOut } from './dialect.ts';
import { isCutJson } from './partial-json.ts';
import { toAnthropicCall } from './providers/anthropic-wire.ts';
import { toOpenAiCall } from './providers/openai-wire.ts';
import type { ProviderStream } from './providers/provider-wire.ts';

/** Between an upstream's bytes and the client: as `http` puts the two together. */
interface Pipe {
  readonly form: UpstreamForm;
  readonly wire: ProviderStream | null;
  readonly out: StreamOut;
}

const target = {
  ...{ model: 'w', outputMax: null, dropFields: [], createdSecs: 1 },
  maxTokensField: 'max_tokens' as const,
};
const LF = 10;
const upstreams = ['neuron', 'openai', 'anthropic'] as const;
type Upstream = (typeof upstreams)[number];

/** Makes fresh pipes. Throws where the provider does not serve the client's route. */
function pipesOf(client: ClientForm, upstream: Upstream): () => Pipe {
  const request = client.dialect.parse(Buffer.from(JSON.stringify(client.ask)));
  const form = request.upstreamPath === '/v1/completions' ? 'completions' : 'chat';
  const body = request.toUpstream({ wireId: 'w' });
  if (upstream === 'neuron') return () => ({ form, wire: null, out: request.streamOut('req_1') });
  const toCall = upstream === 'openai' ? toOpenAiCall : toAnthropicCall;
  const native = upstream === 'anthropic' ? request.native : undefined;
  const call = toCall(native?.path ?? request.upstreamPath, native?.body ?? body, target);
  return () => ({
    form: upstream === 'openai' ? form : 'messages',
    wire: call.streamOut(),
    out: (native ?? request).streamOut('req_1'),
  });
}

/** What the client gets of these pieces; every piece that it gets ends where an event does. */
function replay({ wire, out }: Pipe, pieces: Iterable<Uint8Array>): Buffer {
  const made: Uint8Array[] = [];
  try {
    for (const piece of pieces) made.push(out.push(wire?.push(piece) ?? piece));
    if (wire !== null) made.push(out.push(wire.end()));
    made.push(out.end());
  } catch (thrown) {
    made.push(out.error(toAppError(thrown)));
  }
  for (const each of made) {
    const end = out.headers === undefined ? each.at(-2) : LF;
    assert.ok(each.length === 0 || (each.at(-1) === LF && end === LF), 'ends where an event does');
  }
  return Buffer.concat(made);
}

const bytesOf = (frames: readonly Frame[]): readonly Buffer[] => frames.map(({ bytes }) => bytes);

function* cutInto(bytes: Buffer, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function faultOf({ dialect }: ClientForm, bytes: Buffer): string | null | undefined {
  const grammar = dialect.wireGrammar?.();
  grammar?.push(bytes);
  return grammar?.end();
}

/** Of a stream that must keep the grammar. */
function readChecked(client: ClientForm, bytes: Buffer, where: string): Said {
  const fault = faultOf(client, bytes);
  if (fault !== null) assert.fail(`${fault}, ${where}\n${bytes.toString()}`);
  return client.read(bytes);
}

const isOllama = ({ name }: ClientForm): boolean => name.startsWith('ollama');
/** Ollama's calls are objects: one that was cut off is none. */
const callsFor = (client: ClientForm, calls: Said['calls']): Said['calls'] => {
  const whole = calls.map(([name, args]): [string, string] => [name, args || '{}']);
  return isOllama(client) ? whole.filter(([, args]) => args.endsWith('}')) : whole;
};

/** In chat arguments are a text that may be anything; elsewhere a call that lost its end breaks the answer. */
const isLost = (client: ClientForm, { calls, end }: Said): boolean =>
  client.name !== 'chat' && end === 'calls' && calls.some(([, args]) => isCutJson(args));

/** What a client must have of frames that were whole, given that the answer is over there or broke off. */
function expect(client: ClientForm, sent: Said): Said {
  const { text, reasoning } = sent;
  if (sent.end === null || sent.end === 'error' || isLost(client, sent)) {
    return { ...nothingSaid(), text, reasoning, end: 'error' };
  }
  const end = client.tells(sent.end);
  const [prompt, cached, completion] = sent.usage ?? [0, 0, 0];
  const usage = sent.usage === null ? null : ([prompt, isOllama(client) ? 0 : cached, completion] as const);
  return { text, reasoning, calls: callsFor(client, sent.calls), end, usage };
}

function assertSaid(client: ClientForm, got: Said, sent: Said, wanted: Said, where: string): void {
  assert.deepEqual([got.end, got.text, got.reasoning], [wanted.end, wanted.text, wanted.reasoning], where);
  if (wanted.end === 'error') {
    for (const [at, [name, args]] of got.calls.entries()) {
      const [sentName, sentArgs = ''] = callsFor(client, sent.calls)[at] ?? [];
      assert.ok(name === sentName && sentArgs.startsWith(args), where);
    }
    return;
  }
  assert.deepEqual(callsFor(client, got.calls), wanted.calls, where);
  if (wanted.usage !== null) assert.deepEqual(got.usage, wanted.usage, where);
}

const isRefused = (client: ClientForm, upstream: Upstream): boolean =>
  upstream === 'anthropic' && /completions|raw/.test(client.name);

/** What clients get of the answers that golden/ has. */
function goldenOf(client: ClientForm): string {
  const parts = upstreams.flatMap((upstream) => {
    if (isRefused(client, upstream)) return [];
    const pipes = pipesOf(client, upstream);
    return scripts.flatMap((script) => {
      const frames = script.isGolden ? toFrames(script, pipes().form) : null;
      if (frames === null) return [];
      return [`=== over ${upstream}: ${script.name}\n${replay(pipes(), bytesOf(frames)).toString()}`];
    });
  });
  return parts.join('');
}

for (const client of clientForms) {
  describe(`${client.name}`, () => {
    for (const upstream of upstreams) {
      if (isRefused(client, upstream)) {
        test(`over ${upstream} is refused before it is asked`, () => {
          assert.throws(() => pipesOf(client, upstream), { code: 'wrong_modality' });
        });
        continue;
      }
      const { form } = pipesOf(client, upstream)();
      for (const script of scripts) {
        const frames = toFrames(script, form);
        if (frames === null) continue;
        test(`over ${upstream}: ${script.name}`, () => replayAll(client, upstream, frames));
      }
    }

    test('gets the bytes that golden/ has', () => {
      const file = new URL(`../../src/dialects/golden/${client.name}.txt`, import.meta.url);
      const made = goldenOf(client);
      if (process.env.CORTEX_UPDATE_GOLDEN !== undefined) writeFileSync(file, made);
      assert.equal(made, readFileSync(file, 'utf8'));
    });
  });
}

function replayAll(client: ClientForm, upstream: Upstream, frames: readonly Frame[]): void {
  const bytes = Buffer.concat(bytesOf(frames));
  const sent = saidWithin(frames, bytes.length);
  const wanted = expect(client, sent);
  const pipes = pipesOf(client, upstream);
  const whole = replay(pipes(), bytesOf(frames));
  assertSaid(client, readChecked(client, whole, 'whole'), sent, wanted, 'whole');
  for (const size of [1, 7, bytes.length]) {
    const where = `in pieces of ${size}`;
    const made = replay(pipes(), cutInto(bytes, size));
    assertSaid(client, readChecked(client, made, where), sent, wanted, where);
  }
  const boundaries = new Set(frames.map((_, at) => Buffer.concat(bytesOf(frames.slice(0, at))).length));
  let made: Buffer = Buffer.alloc(0);
  for (let cut = 0; cut < bytes.length; cut++) {
    const where = `cut at ${cut}`;
    // it passes whole events only: an event's ends stand for all of it
    if (upstream === 'openai' && ![-1, 0, 1].some((beside) => boundaries.has(cut + beside))) continue;
    const before = made;
    made = replay(pipes(), [bytes.subarray(0, cut)]);
    // inside an event as at its beginning, which was looked at
    if (!boundaries.has(cut) && made.equals(before)) continue;
    const within = saidWithin(frames, cut);
    assertSaid(client, readChecked(client, made, where), within, expect(client, within), where);
  }
}

test('random answers in random pieces, cut anywhere, keep the grammar and lose no text', () => {
  const random = new SeededRandom();
  const text = (): string =>
    Array.from({ length: random.int(1, 4) }, () =>
      random.pick(['a', ' ', '世', '🌍', '\n\n', '"', '\\']),
    ).join('');
  for (let round = 0; round < 300; round++) {
    let calls = 0;
    const steps = Array.from({ length: random.int(0, 8) }, (): Script['steps'][number] => {
      const kind = random.int(0, 3);
      if (kind === 0) return { call: calls++, name: 'f', args: JSON.stringify({ [text()]: text() }) };
      return kind === 1 ? { think: text() } : { text: text() };
    });
    const end = random.pick(['stop', 'length', 'error'] as const);
    const script: Script = { name: 'random', steps, end: end === 'stop' && calls > 0 ? 'calls' : end };
    const client = random.pick(clientForms);
    const upstream = random.pick(upstreams.filter((each) => !isRefused(client, each)));
    const pipe = pipesOf(client, upstream)();
    const frames = toFrames(script, pipe.form);
    if (frames === null) continue;
    const bytes = Buffer.concat(bytesOf(frames));
    const cut = random.chance(0.5) ? bytes.length : random.int(0, bytes.length);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < cut; ) {
      const size = random.int(1, random.pick([3, 50, 500]));
      pieces.push(bytes.subarray(at, Math.min(cut, at + size)));
      at += size;
    }
    const where = `seed ${random.seed}, round ${round}, ${client.name} over ${upstream}, cut ${cut}`;
    const within = saidWithin(frames, cut);
    const got = readChecked(client, replay(pipe, pieces), where);
    assertSaid(client, got, within, expect(client, within), where);
  }
});

test('events of an upstream that are lost, doubled, swapped or nonsense leave the stream of a translation valid', () => {
  const random = new SeededRandom();
  const nonsense = ['null', '[]', '{', '{}', '{"choices":[null]}', '{"type":"new"}', '{"error":null}'];
  const passOn = [/^(chat|completions) over (neuron|openai)$/, /^messages over anthropic$/];
  const pairs = clientForms.flatMap((client) =>
    upstreams
      .filter((upstream) => !isRefused(client, upstream))
      .filter((upstream) => !passOn.some((each) => each.test(`${client.name} over ${upstream}`)))
      .map((upstream) => ({ client, upstream, pipes: pipesOf(client, upstream) })),
  );
  for (let round = 0; round < 1000; round++) {
    const { client, upstream, pipes } = random.pick(pairs);
    const pipe = pipes();
    const pieces = [...bytesOf(toFrames(random.pick(scripts), pipe.form) ?? [])];
    for (let faults = random.int(1, 3); faults > 0 && pieces.length > 0; faults--) {
      const at = random.int(0, pieces.length - 1);
      const kind = random.int(0, 3);
      if (kind === 0) pieces.splice(at, 1);
      else if (kind === 1) pieces.splice(at, 0, random.pick(pieces));
      else if (kind === 2) pieces.splice(random.int(0, pieces.length - 1), 0, ...pieces.splice(at, 1));
      else pieces.splice(at, 0, Buffer.from(`data: ${random.pick(nonsense)}\n\n`));
    }
    const all = Buffer.concat(pieces);
    const made = replay(pipe, random.chance(0.5) ? pieces : cutInto(all, random.int(1, 60)));
    const where = `seed ${random.seed}, round ${round}, ${client.name} over ${upstream}\n${all.toString()}`;
    const fault = faultOf(client, made);
    // a piece from the middle of a call's arguments was lost: no reader mends what is left
    if (fault === 'input_not_json') continue;
    assert.equal(fault, null, `${where}\n${made.toString()}`);
  }
});
