import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { ollamaChat } from './ollama.ts';
import { OllamaGrammar } from './ollama-grammar.ts';

type Json = Record<string, unknown>;

const head = { model: 'm', created_at: 't' };
const part = (content: string, more: Json = {}): Json => ({
  ...head,
  message: { role: 'assistant', content, ...more },
  done: false,
});
const last = { ...part(''), done: true, done_reason: 'stop' };

function faultOf(lines: readonly unknown[], tail = ''): string | null {
  const grammar = new OllamaGrammar('chat');
  const text =
    lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join('') + tail;
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 3) grammar.push(bytes.subarray(at, at + 3));
  return grammar.end();
}

describe('the checker finds', () => {
  const call = (index: number, given: unknown = {}): Json => ({
    tool_calls: [{ function: { index, name: 'f', arguments: given } }],
  });
  const faults: readonly (readonly [string | null, readonly unknown[], string?])[] = [
    [null, [part('ü'), part('', call(0)), part('', call(1)), last]],
    [null, [part('a'), { error: 'it broke' }]],
    [null, [{ error: 'it broke' }]],
    ['no_end', [part('a')]],
    ['no_end', []],
    ['half_a_line', [last], '{'],
    ['not_json', ['', last]],
    ['not_json', ['data: {}', last]],
    ['after_end', [last, part('a')]],
    ['after_end', [last, last]],
    ['after_end', [{ error: 'x' }, last]],
    ['error_shape', [{ error: { message: 'x' } }]],
    ['error_shape', [{ error: 'x', done: true }]],
    ['line_shape', [{ ...last, model: undefined }]],
    ['body_shape', [{ ...head, response: 'a', done: false }]],
    ['body_shape', [part('a', { content: null }), last]],
    ['early_reason', [{ ...part('a'), done_reason: 'stop' }, last]],
    ['no_done', [{ ...part('a'), done: undefined }]],
    ['done_reason', [{ ...last, done_reason: undefined }]],
    ['call_shape', [part('', call(0, '{}')), last]],
    ['call_index', [part('', call(1)), last]],
  ];
  for (const [fault, lines, tail] of faults) {
    test(`${fault ?? 'nothing'} in ${JSON.stringify(lines).slice(0, 100)}`, () => {
      assert.equal(faultOf(lines, tail), fault);
    });
  }
});

/** An answer of random pieces, as a neuron would send it; ends anywhere, or in an error. */
function randomAnswer(random: (below: number) => number): Buffer {
  const chunk = (delta: Json, finish: string | null = null): string =>
    `data: ${JSON.stringify({ id: 'c', created: 1, choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
  let text = chunk({ role: 'assistant', content: '' });
  let calls = 0;
  for (let pieces = random(8); pieces > 0; pieces--) {
    const kind = random(4);
    if (kind === 0) text += chunk({ content: 'Wört 🌍' });
    else if (kind === 1) text += chunk({ reasoning_content: 'hm' });
    else if (kind === 2) text += ': ping\n\n';
    else {
      const index = calls++;
      text += chunk({
        tool_calls: [{ index, id: `c${index}`, function: { name: 'f', arguments: '{"x":' } }],
      });
      text += chunk({ tool_calls: [{ index, function: { arguments: '"ü"}' } }] });
    }
  }
  const end = random(4);
  if (end === 0) text += 'data: {"error":{"message":"it broke","code":"device_gone"}}\n\n';
  else if (end < 3) text += `${chunk({}, calls > 0 ? 'tool_calls' : 'stop')}data: [DONE]\n\n`;
  const bytes = Buffer.from(text);
  return random(3) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
}

test('no answer, chunking or cut makes lines that break the grammar', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  console.log(`SEED=${seed}`);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const request = Buffer.from(JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x' }] }));
  for (let run = 0; run < 500; run++) {
    const answer = randomAnswer(random);
    const out = ollamaChat((name) => name)
      .parse(request)
      .streamOut('r');
    const grammar = new OllamaGrammar('chat');
    try {
      for (let at = 0; at < answer.length; ) {
        const size = 1 + random(40);
        grammar.push(out.push(answer.subarray(at, at + size)));
        if (random(5) === 0) grammar.push(out.keepAlive());
        at += size;
      }
      grammar.push(out.end());
    } catch (thrown) {
      assert.ok(thrown instanceof AppError);
      grammar.push(out.error(thrown));
    }
    assert.equal(grammar.end(), null, `run ${run}: ${answer.toString()}`);
  }
});
