import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTrace, parseTrace } from './trace.ts';
import { generateTrace } from './traces.ts';

test('a trace survives being written and read', () => {
  for (const name of ['orchestrator', 'agents'] as const) {
    const { requests } = generateTrace(name, 1);
    assert.deepEqual(parseTrace(formatTrace(requests)), requests);
  }
});

test('a faulty line is named, with its field and what to do', () => {
  const good = '{"model":"m","at":0,"prompt_tokens":1,"completion_tokens":1,"id":"a"}';
  const cases: readonly (readonly [string, RegExp])[] = [
    ['', /no requests/],
    ['{', /line 1: is not JSON/],
    [`${good}\n\n{"model":"m","at":0,"prompt_tokens":-1,"completion_tokens":1}`, /line 3: prompt_tokens/],
    ['{"model":"m","prompt_tokens":1,"completion_tokens":1}', /line 1: give either "at" or "after"/],
    [`${good}\n${good}`, /line 2: id "a" is used twice/],
    [
      `${good}\n{"model":"m","after":"b","prompt_tokens":1,"completion_tokens":1}`,
      /line 2: after: no request "b"/,
    ],
    ['{"model":"m","at":0,"prompt_tokens":1,"completion_tokens":1,"x":1}', /line 1: .*"x"/],
  ];
  for (const [text, message] of cases) assert.throws(() => parseTrace(text), message);
});
