import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError } from 'cortex-core/config/config-error';
import { parseFaults } from './fault-plan.ts';

const none = { modelId: null, lives: null, step: 0, ms: 0 };

test('nothing is planted without the variable', () => {
  for (const text of [undefined, '', '  ']) assert.deepEqual(parseFaults(text), []);
});

test('every fault is read with its options, models with colons and slashes too', () => {
  assert.deepEqual(
    parseFaults(
      'abort:step=3, model=hf:owner/name:Q4_0 ,lives=2; hang:step=1;nan:step=7;slow_load:ms=50;load_oom',
    ),
    [
      { ...none, kind: 'abort', step: 3, modelId: 'hf:owner/name:Q4_0', lives: 2 },
      { ...none, kind: 'hang', step: 1 },
      { ...none, kind: 'nan', step: 7 },
      { ...none, kind: 'slow_load', ms: 50 },
      { ...none, kind: 'load_oom' },
    ],
  );
  assert.deepEqual(parseFaults('load_oom:lives=1'), [{ ...none, kind: 'load_oom', lives: 1 }]);
});

test('what is not understood is refused with what to write', () => {
  const cases: Record<string, RegExp> = {
    'abrot:step=1': /environment NEURON_FAULT: "abrot:step=1" starts with no fault.*did you mean "abort"\?/,
    abort: /abort needs step: abort:step=1/,
    'abort:step=0': /step of abort must be a whole number from 1, not "0"/,
    'abort:step=1.5': /not "1.5"/,
    'abort:step=99999999999': /not "99999999999"/,
    'abort:step': /abort needs one value for step/,
    'abort:step=1,step=2': /abort needs one value for step/,
    'abort:ms=5,step=1': /abort has no "ms"; it takes step, model, lives/,
    'slow_load:step=1': /slow_load has no "step"; it takes ms, model, lives/,
    'hang:step=1,lifes=1': /did you mean "lives"\?/,
    'hang:step=1;': /"" starts with no fault/,
    '1': /"1" starts with no fault; use abort, hang, nan, slow_load, load_oom, load_abort/,
  };
  for (const [text, message] of Object.entries(cases)) {
    assert.throws(
      () => parseFaults(text),
      (error: unknown) => error instanceof ConfigError && message.test(error.message),
      text,
    );
  }
});
