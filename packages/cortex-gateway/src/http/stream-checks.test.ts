/** Which streams are held against their grammar. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from 'cortex-core/daemon/log';
import { openAiChat } from '../dialects/openai.ts';
import { StreamChecks } from './stream-checks.ts';

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
