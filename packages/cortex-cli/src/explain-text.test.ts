import assert from 'node:assert/strict';
import { test } from 'node:test';
import { renderExplanation } from './explain-text.ts';
import { readExplanation } from './fleet-answer.ts';
import { createStyle } from './style.ts';

const plain = createStyle(false);

const terms = (more: object) => ({
  ...{ queue_secs: 0, evict_secs: 0, load_secs: 0, prefill_secs: 0.5, expected_secs: 0.5 },
  ...{ displaced_secs: 0, cached_tokens: 0, ahead: 0 },
  ...more,
});

test('an explanation is a table of every candidate, its terms and why it lost', () => {
  const text = renderExplanation(
    readExplanation({
      ...{ requested: 'fast', model: 'qwen3-8b', prompt_tokens: 1000, decision: 'forward', node: 'beast' },
      why: 'least expected wait of 2 replicas',
      candidates: [
        {
          ...{ node: 'beast', state: 'ready', verdict: 'chosen', why: 'least expected wait of 2 replicas' },
          ...{ evict: [], terms: terms({ cached_tokens: 700 }) },
        },
        {
          ...{ node: 'new', state: 'cold', verdict: 'lost', why: '42.50 s behind beast', evict: ['tiny'] },
          terms: terms({ turn_secs: 30, evict_secs: 0.5, load_secs: 12, expected_secs: 43 }),
        },
        {
          node: 'old',
          state: 'cannot',
          verdict: 'cannot',
          why: 'old does not answer',
          evict: [],
          terms: null,
        },
      ],
    }),
    plain,
  );
  assert.equal(
    text,
    [
      'fast (qwen3-8b), 1000 prompt tokens: goes to beast; least expected wait of 2 replicas',
      '',
      'NODE   STATE  EXPECTED  QUEUE    TURN   EVICT    LOAD  PREFILL  WHY',
      'beast  ready    0.50 s      0       0       0       0   0.50 s  chosen: least expected wait of 2 replicas (700 tokens cached)',
      'new    cold     43.0 s      0  30.0 s  0.50 s  12.0 s   0.50 s  42.50 s behind beast (evicts tiny)',
      'old    -             -      -       -       -       -        -  old does not answer',
      '',
    ].join('\n'),
  );
});

test('a load that waits for its turn says what is in the way', () => {
  const text = renderExplanation(
    readExplanation({
      ...{ requested: 'm', model: 'm', prompt_tokens: 1, decision: 'load', node: 'n0', candidates: [] },
      ...{ why: 'loads after 1 other left', turn: 'its turn comes in 35.0 s at the latest' },
    }),
    plain,
  );
  assert.equal(
    text,
    'm, 1 prompt tokens: is loaded on n0; loads after 1 other left; its turn comes in 35.0 s at the latest\n',
  );
});

test('a refusal and a terminal that is attacked', () => {
  const text = renderExplanation(
    readExplanation({
      ...{ requested: 'x\u001b[2J', model: 'x\u001b[2J', prompt_tokens: 1, decision: 'reject', node: null },
      ...{ why: 'not found', candidates: [] },
    }),
    plain,
  );
  assert.match(text, /is refused; not found/);
  assert.ok(!text.includes('\u001b'));
});
