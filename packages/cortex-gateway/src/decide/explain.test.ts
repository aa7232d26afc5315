import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { explain } from './explain.ts';
import { toFleetView } from './to-fleet-view.ts';

describe('explain()', () => {
  const rates = [
    { node: 'big', model: 'm', prefillTokS: 2000, serviceMs: 4000 },
    { node: 'old', model: 'm', prefillTokS: 500, serviceMs: 8000 },
  ];
  const view = toFleetView({
    nodes: [
      { name: 'big', devices: [{ totalMb: 8000, freeMb: 0 }], models: [{ id: 'm', slots: 1, leases: 1 }] },
      { name: 'old', devices: [{ totalMb: 8000, freeMb: 0 }], models: [{ id: 'm', slots: 1 }] },
      { name: 'new', devices: [{ totalMb: 8000, freeMb: 8000 }] },
      { name: 'tiny', devices: [{ totalMb: 500, freeMb: 500 }] },
      { name: 'down', healthy: false },
    ],
    catalogue: [{ id: 'm', vramMb: 6000 }],
    aliases: { fast: 'm' },
    rates,
  });

  test('says what each candidate lost by, and why others are none', () => {
    const { node, model, candidates } = explain(view, { model: 'fast', promptTokens: 1000 });
    assert.deepEqual([node, model], ['old', 'm']);
    assert.deepEqual(
      candidates.map((each) => `${each.node} ${each.state} ${each.verdict}: ${each.why}`),
      [
        'old ready chosen: least expected wait of 2 replicas',
        'big ready lost: 2.55 s behind old: it waits 4.00 s more in the queue',
        'new cold lost: 127.80 s behind old: it needs 129.00 s more to load',
        'down cannot cannot: down does not answer',
        'tiny cannot cannot: needs 6000 MiB, tiny has only 500 MiB on 1 device(s)',
      ],
    );
  });

  test('an unknown model is explained by what a request would hear', () => {
    const { decision, node, why } = explain(view, { model: 'nobody' });
    assert.deepEqual([decision, node], ['reject', null]);
    assert.match(why, /"nobody" not found/);
  });
});
