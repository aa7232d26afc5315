import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { agentTurns } from './agent-transcript.test.kit.ts';
import { anthropicMessages } from './anthropic.ts';
import type { Dialect } from './dialect.ts';
import { openAiChat } from './openai.ts';
import { mayNeedHygiene } from './prefix-hygiene.ts';

const upstreamOf = (dialect: Dialect, body: object | string, prefixHygiene = true) => {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const parsed = dialect.parse(bytes, { prefixHygiene });
  const upstream = Buffer.from(parsed.toUpstream({ wireId: 'm' })).toString();
  return { upstream, normalized: parsed.isPrefixNormalized === true };
};
const chat = (content: unknown, role = 'system') => ({ model: 'm', messages: [{ role, content }] });
const contentOf = (body: object) => JSON.parse(upstreamOf(openAiChat, body).upstream).messages[0].content;

/** Of the earlier prompt, how much the later one begins with. */
function sharedShare(earlier: string, later: string): number {
  let at = 0;
  while (at < earlier.length && earlier[at] === later[at]) at++;
  return at / earlier.length;
}
/** The order of a prompt: tools, then the turns. A character stands for a token. */
function promptOf(upstream: string): string {
  const { messages, tools = [] } = JSON.parse(upstream) as { messages: object[]; tools?: object[] };
  return [...tools, ...messages].map((each) => JSON.stringify(each)).join('\n');
}

describe('consecutive turns of an agent share their beginning', () => {
  const turns = agentTurns(6);
  const sharesOf = (dialect: Dialect, bodies: readonly object[], hygiene: boolean): number[] => {
    const prompts = bodies.map((body) => promptOf(upstreamOf(dialect, body, hygiene).upstream));
    return prompts.slice(1).map((prompt, at) => sharedShare(prompts[at]!, prompt));
  };

  it('through the Messages API', () => {
    for (const share of sharesOf(anthropicMessages, turns.messages, true))
      assert.ok(share >= 0.99, `${share}`);
    for (const share of sharesOf(anthropicMessages, turns.messages, false))
      assert.ok(share < 0.5, `${share}`);
  });

  it('and as chat bodies', () => {
    for (const share of sharesOf(openAiChat, turns.chat, true)) assert.ok(share >= 0.99, `${share}`);
    for (const share of sharesOf(openAiChat, turns.chat, false)) assert.ok(share < 0.5, `${share}`);
  });
});

describe('prefix hygiene', () => {
  it('takes out billing headers, counters and the time of day, and nothing beside them', () => {
    for (const [given, kept] of [
      [
        'x-anthropic-billing-header: cc_version=2.1.330.1a2; cc_entrypoint=cli; cch=0f3a1;\nYou are',
        'You are',
      ],
      ['x-anthropic-billing-header: cch=1;', ''],
      ['a\nx-anthropic-billing-header: cch=1;\nb', 'a\nb'],
      ['left: <total_tokens>151200 tokens left</total_tokens>\nGo', 'left: Go'],
      ['<total_tokens>151,200</total_tokens>', ''],
      ['<system_warning>Token usage: 1234/200000; 198766 remaining</system_warning>\nx', 'x'],
      ['Current date and time: 2026-11-25T12:30:45.123Z (UTC)', 'Current date and time: 2026-11-25 (UTC)'],
      ['The current time is 2026-11-25 12:30:45 +01:00.', 'The current time is 2026-11-25.'],
      ["Today's date: 2026-11-25", "Today's date: 2026-11-25"],
      ['the file changed at 2026-11-25T12:30:45Z', 'the file changed at 2026-11-25T12:30:45Z'],
      ['see x-anthropic-billing-header: in the docs', 'see x-anthropic-billing-header: in the docs'],
      ['<total_tokens>many</total_tokens>', '<total_tokens>many</total_tokens>'],
    ] as const) {
      assert.equal(contentOf(chat(given)), kept);
      assert.deepEqual(
        contentOf(chat([{ type: 'text', text: given, cache_control: { type: 'ephemeral' } }])),
        [{ type: 'text', text: kept, cache_control: { type: 'ephemeral' } }],
      );
    }
  });

  it("leaves a user's words alone, but for the counter, and everything else whole", () => {
    const said = 'x-anthropic-billing-header: cch=1;\nCurrent time: 2026-11-25 12:30';
    assert.equal(contentOf(chat(said, 'user')), said);
    assert.equal(contentOf(chat('<total_tokens>9</total_tokens>\nhi', 'user')), 'hi');
    for (const role of ['assistant', 'tool']) {
      assert.equal(contentOf(chat('<total_tokens>9</total_tokens>', role)), '<total_tokens>9</total_tokens>');
    }
  });

  it('passes bodies on byte by byte where there is nothing to take out, or where it is switched off', () => {
    const odd =
      '{ "messages" : [ {"role":"system","content":"h\\u0069 total_tokens"} ] , "model":"m","n":1.0}';
    assert.deepEqual(upstreamOf(openAiChat, odd), { upstream: odd, normalized: false });
    const marked = '{"model":"m","messages":[{"role":"system","content":"x-anthropic-billing-header: a"}] }';
    assert.deepEqual(upstreamOf(openAiChat, marked, false), { upstream: marked, normalized: false });
    assert.deepEqual(upstreamOf(openAiChat, marked), {
      upstream: '{"model":"m","messages":[{"role":"system","content":""}] }',
      normalized: true,
    });
  });

  it('finds markers however JSON may spell them', () => {
    assert.equal(mayNeedHygiene(Buffer.from('{"a":"\\u003ctotal_tokens\\u003e5"}')), true);
    assert.equal(mayNeedHygiene(Buffer.from(JSON.stringify(chat('Current time: 2026-11-25 12:30')))), true);
    assert.equal(mayNeedHygiene(Buffer.from(JSON.stringify(chat('nothing of the kind')))), false);
  });

  it('takes what stands in odd places', () => {
    for (const messages of [
      [null],
      [5],
      [{ role: 'system' }],
      [{ role: 'system', content: [null, 5, { text: 5 }] }],
    ]) {
      const body = { model: 'm', messages, note: 'total_tokens' };
      assert.equal(upstreamOf(openAiChat, body).upstream, JSON.stringify(body));
    }
  });
});
