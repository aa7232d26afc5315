import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ChatEvent } from 'cortex-core/wire/chat-events';
import type { ChatFormat } from './chat-format.ts';
import { createChatParser } from './chat-parser.ts';
import { type FamilySample, samples } from './families.test.kit.ts';
import { byCharacter, collect, formatOf, mergeEvents, parseEvents, tools } from './format.test.kit.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const rounds = Number(process.env.ROUNDS ?? 120);
console.log(`SEED=${seed}`);

const cases = samples.map((sample) => ({ sample, format: formatOf(sample.template) }));

describe('any text in any pieces', () => {
  it('gives the same events for every way to cut it, loses no text and never throws', () => {
    const random = mulberry32(seed);
    for (const { sample, format } of cases) {
      const pieces = fragments(sample, format);
      for (let round = 0; round < rounds; round++) {
        const text = randomText(pieces, random);
        const where = `SEED=${seed} ${sample.family} round ${round}: ${JSON.stringify(text)}`;
        const startsInReasoning = random() < 0.2;
        const options = { startsInReasoning, parallel: random() < 0.9 };
        const whole = mergeEvents(parseEvents(format, text, options));
        for (const cut of [byCharacter, (all: string) => randomCut(all, random)]) {
          assert.deepEqual(mergeEvents(parseEvents(format, text, { ...options, cut })), whole, where);
        }
        checkOrder(whole, where);
        if (!whole.some(({ kind }) => kind === 'call_start')) checkNothingLost(format, text, whole, where);
        const offeredNothing = parseEvents(format, text, { ...options, tools: [] });
        checkNothingLost(format, text, offeredNothing, where);
      }
    }
  });

  it('hands out arguments that are JSON, or the prefix of it that the model wrote', () => {
    for (const { sample, format } of cases) {
      for (const text of [sample.call, sample.parallel]) {
        const whole = collect(parseEvents(format, text));
        for (let end = 0; end < text.length; end++) {
          const { calls } = collect(parseEvents(format, text.slice(0, end)));
          for (const [at, call] of calls.entries()) {
            const full = whole.calls[at]?.arguments ?? '';
            assert.ok(
              full.startsWith(call.arguments),
              `${sample.family}, cut at ${end}: ${call.arguments} is no prefix of ${full}`,
            );
          }
        }
      }
    }
  });

  it('takes time in proportion to the text', () => {
    for (const { sample, format } of cases) {
      for (const unit of hostileUnits(sample, format)) {
        const [small, large] = [1, 4].map((factor) => countSteps(format, unit, factor * 10_000)) as [
          number,
          number,
        ];
        const where = `${sample.family}, ${JSON.stringify(unit.slice(0, 60))}: ${small} then ${large} steps`;
        assert.ok(large <= 4.5 * small + 20_000, where);
        // A header or a name that never ends is looked at again from every marker in it, but only so far.
        assert.ok(large <= 200 * 40_000, where);
      }
    }
  });

  it('gives back a megabyte of the commonest first character of markers', () => {
    const text = '<'.repeat(1024 * 1024);
    for (const { sample, format } of cases) {
      const { content, reasoning } = collect(parseEvents(format, text));
      assert.equal((reasoning + content).length, text.length, sample.family);
    }
  });
});

function countSteps(format: ChatFormat, unit: string, length: number): number {
  const text = unit.repeat(Math.ceil(length / unit.length));
  const parser = createChatParser(format, {
    tools,
    startsInReasoning: false,
    parallel: true,
    randomText: () => 'x'.repeat(24),
  });
  for (let at = 0; at < text.length; at += 4096) parser.push(text.slice(at, at + 4096));
  parser.finish();
  return parser.steps;
}

function hostileUnits(sample: FamilySample, format: ChatFormat): string[] {
  const openers = format.calls.flatMap(({ openers: each }) => each).filter((opener) => opener !== '');
  return [
    '<',
    '[',
    '{"',
    '{"arguments": {"a": "',
    ' ',
    '\\',
    ...openers,
    ...openers.map((opener) => `${opener}{"arguments": "`),
    ...openers.map((opener) => `${opener}${' '.repeat(500)}`),
    ...format.reasoning.map(({ open }) => open),
    sample.lookalike,
    sample.call.slice(0, -6),
    sample.call,
  ];
}

function fragments(sample: FamilySample, format: ChatFormat): string[] {
  const marks = [
    ...format.calls.flatMap(({ openers, closers }) => [...openers, ...closers]),
    ...format.reasoning.flatMap(({ open, close }) => [open, close]),
    ...format.dropped,
    ...Object.values(format.answerFrame ?? {}),
  ];
  const words = [
    'lookup_tide',
    'ring_bell',
    'python',
    'sell_boat',
    'harbour',
    '"name": "ring_bell"',
    '"arguments":',
  ];
  const bits = [
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '\\',
    '\n',
    ' ',
    '<',
    '>',
    '</',
    '|',
    '`',
    '(',
    ')',
    '=',
    "'",
    '3',
  ];
  const odd = ['\ud83d', '\ude00', '\ud83d\ude00', '\ufffd', '\u0000', 'é', '\u2028', '\ufeff'];
  const samplesOf = [sample.call, sample.parallel, sample.reasoning, sample.lookalike];
  const parts = samplesOf.flatMap((text) => [
    text,
    text.slice(0, text.length / 2),
    text.slice(text.length / 2),
  ]);
  return [...marks, ...marks, ...words, ...bits, ...odd, ...parts, 'the tide is high'];
}

function randomText(pieces: readonly string[], random: () => number): string {
  let text = '';
  const count = 1 + Math.floor(random() * 14);
  for (let at = 0; at < count; at++) {
    const piece = pieces[Math.floor(random() * pieces.length)] as string;
    text += random() < 0.1 ? piece.slice(0, Math.floor(random() * piece.length)) : piece;
  }
  return text;
}

function randomCut(text: string, random: () => number): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const length = 1 + Math.floor(random() * 9);
    pieces.push(text.slice(at, at + length));
    at += length;
  }
  return pieces;
}

/** Calls count from 0, do not interleave, and end. */
function checkOrder(events: readonly ChatEvent[], where: string): void {
  let [open, next]: [number | null, number] = [null, 0];
  for (const event of events) {
    if (event.kind === 'call_start') {
      assert.deepEqual([open, event.index], [null, next], where);
      assert.ok(tools.some(({ name }) => name === event.name) && event.id !== '', where);
      open = next++;
    } else if (event.kind === 'call_arguments') assert.equal(event.index, open, where);
    else if (event.kind === 'call_end') {
      assert.equal(event.index, open, where);
      open = null;
    } else assert.equal(open, null, where);
  }
  assert.equal(open, null, where);
}

/** Without calls, text and reasoning are the whole text but for markers and the blanks around them. */
function checkNothingLost(
  format: ChatFormat,
  text: string,
  events: readonly ChatEvent[],
  where: string,
): void {
  const { reasoning, content } = collect(events);
  const bare = (given: string): string => bareText(given, format);
  // Reasoning and content are in order here: a block may follow text only where it is marked by tokens.
  const said = events.map((event) => ('text' in event ? event.text : '')).join('');
  assert.equal(said.length, reasoning.length + content.length, where);
  if (format.name === 'harmony' && bare(said) !== bare(text)) {
    // The turn may have ended within a header.
    const cut = text.replace(/<\|(start|channel)\|>[\w =.<|>-]*$/, '');
    assert.ok(bare(said).startsWith(bare(cut)) && bare(text).startsWith(bare(said)), where);
  } else assert.equal(bare(said), bare(text), where);
}

function bareText(text: string, format: ChatFormat): string {
  const marks = format.reasoning.flatMap(({ open, close }) => [open, close]);
  const all = [
    ...marks,
    ...format.dropped,
    ...Object.values(format.answerFrame ?? {}),
    '<|end|>',
    '<|call|>',
    '<|return|>',
    '<|start|>assistant',
    '>>>all',
  ];
  const channels = /<\|channel\|>(analysis|commentary|final)|json|code|to=(all|assistant)/g;
  let bare = text.replace(/[ \t\r\n]/g, '');
  for (let before = ''; before !== bare; ) {
    before = bare;
    for (const mark of all) bare = bare.replaceAll(mark.replace(/\s/g, ''), '');
    if (format.name === 'harmony') bare = bare.replaceAll(channels, '').replaceAll(/<\|\w*\|?>?/g, '');
    if (format.name === 'functionary-v3.2') bare = bare.replaceAll('>>>', '').replaceAll('all', '');
  }
  return bare;
}

function mulberry32(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
