/** Which streams are held against their grammar. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import { anthropicMessages } from '../dialects/anthropic.ts';
import type { Dialect, StreamOut } from '../dialects/dialect.ts';
import { ollamaChat, ollamaGenerate } from '../dialects/ollama/ollama.ts';
import { openAiChat, openAiCompletions } from '../dialects/openai.ts';
import { responsesWire } from '../dialects/responses/responses.ts';
import { StreamChecks } from './stream-checks.ts';

const dialects: readonly Omit<Dialect, 'parse'>[] = [
  ...[openAiChat, openAiCompletions, anthropicMessages, responsesWire],
  ...[ollamaChat((name) => name), ollamaGenerate((name) => name)],
];
/** What no dialect allows: words without an event around them, and no end. */
const wrong: StreamOut = {
  pingsDuringAnswer: true,
  push: (chunk) => chunk,
  end: () => new Uint8Array(0),
  error: () => new Uint8Array(0),
  keepAlive: () => new Uint8Array(0),
};
const checksOf = (every: number) => {
  const faults: string[] = [];
  const onFault = (dialect: string) => void faults.push(dialect);
  const checks = new StreamChecks({ every, log: silentLog, onFault });
  const open = (dialect: Omit<Dialect, 'parse'>): StreamOut =>
    checks.begin({ ...dialect, parse: () => assert.fail() }, 'req_1')(wrong);
  return { faults, open };
};
const words = Buffer.from('data: {"words":1}\n\n');

describe('StreamChecks', () => {
  test('every dialect that streams is held to its grammar, under its own name, and no byte is changed', () => {
    for (const dialect of dialects) {
      for (const last of ['end', 'error'] as const) {
        const { faults, open } = checksOf(1);
        const out = open(dialect);
        assert.deepEqual(out.push(words), words);
        assert.deepEqual(faults, []);
        if (last === 'end') out.end();
        else out.error(new AppError('overloaded', 'x'));
        assert.deepEqual(faults, [dialect.name], last);
      }
    }
  });

  test('one in so many is checked, none where that is 0', () => {
    for (const [every, expected] of [
      [0, 0],
      [1, 12],
      [3, 4],
      [5, 3],
    ] as const) {
      const { faults, open } = checksOf(every);
      for (let at = 0; at < 12; at++) {
        const out = open(openAiChat);
        out.push(words);
        out.end();
      }
      assert.equal(faults.length, expected, `one in ${every}`);
    }
  });

  test('a stream whose client left is not judged', () => {
    const { faults, open } = checksOf(1);
    open(openAiChat).push(words);
    assert.deepEqual(faults, []);
  });

  test('a stream that changes its translator is checked in the new one, and counts once', () => {
    const rules: string[] = [];
    const checks = new StreamChecks({ every: 2, log: silentLog, onFault: (_, rule) => rules.push(rule) });
    const { streamOut } = openAiChat.parse(Buffer.from('{"model":"m","messages":[],"stream":true}'));
    for (let stream = 0; stream < 4; stream++) {
      const checked = checks.begin(openAiChat, `r${stream}`);
      checked(streamOut(`r${stream}`)).keepAlive();
      const out = checked(streamOut(`r${stream}`));
      out.push(Buffer.from('data: {"id":"a"}\n\ndata: [DONE]\n\n'));
      out.end();
      assert.equal(rules.length, 1 + Math.floor(stream / 2), `stream ${stream}`);
    }
  });
});
