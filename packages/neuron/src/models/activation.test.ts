import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import { modelSpecSchema } from 'cortex-core/wire/neuron';
import { FakeClock } from 'testkit/clock';
import { DefaultModels } from './activation.ts';
import type { ModelRegistry } from './registry.ts';

const retrySecs = [10, 20, 40, 80, 160, 300];
const unreachable = (): AppError => new AppError('repo_fetch_failed', 'the hub cannot be reached');

/** `answer` decides each attempt of each model. */
function setUp(ids: readonly string[], answer: (id: string, attempt: number) => AppError | null) {
  const clock = new FakeClock();
  const attempts: { readonly id: string; readonly atSecs: number }[] = [];
  const loaded = new Set<string>();
  const registry = {
    isLoaded: (id: string) => loaded.has(id),
    load: async ({ model_id: id }: { model_id: string }) => {
      const before = attempts.filter((each) => each.id === id).length;
      attempts.push({ id, atSecs: clock.monotonicMs() / 1000 });
      const error = answer(id, before);
      if (error !== null) throw error;
      loaded.add(id);
    },
  };
  const models = ids.map((model_id) => modelSpecSchema.parse({ model_id }));
  const deps = { registry: registry as unknown as ModelRegistry, clock, log: silentLog, baseDir: '/' };
  return { activation: new DefaultModels(models, deps), clock, attempts, loaded };
}

const live = new AbortController().signal;

describe('DefaultModels', () => {
  it('tries a hub that cannot be reached six times more, then gives up and goes on', async () => {
    const { activation, clock, attempts } = setUp(['org/far', 'near'], (id) =>
      id === 'near' ? null : unreachable(),
    );
    const done = activation.run(live);
    for (const secs of retrySecs) {
      await clock.advance(secs * 1000 - 1);
      const before = attempts.length;
      assert.deepEqual(activation.state, {
        state: 'pre_warming',
        pending: ['near'],
        in_progress: 'org/far',
        completed: [],
        failed: [],
      });
      await clock.advance(1);
      assert.ok(attempts.length > before, `no attempt after ${secs} s`);
    }
    await done;
    const far = attempts.filter(({ id }) => id === 'org/far').map(({ atSecs }) => atSecs);
    assert.deepEqual(far, [0, 10, 30, 70, 150, 310, 610]);
    assert.deepEqual(activation.state, {
      state: 'ready',
      pending: [],
      in_progress: null,
      completed: ['near'],
      failed: [{ model_id: 'org/far', error: 'the hub cannot be reached' }],
    });
    assert.equal(clock.pending, 0);
  });

  it('is done when an attempt succeeds', async () => {
    const { activation, clock, attempts } = setUp(['org/far'], (_, attempt) =>
      attempt < 2 ? unreachable() : null,
    );
    const done = activation.run(live);
    await clock.advance(30_000);
    await done;
    assert.equal(attempts.length, 3);
    assert.deepEqual(activation.state.completed, ['org/far']);
  });

  it('does not load again what someone loaded by hand meanwhile', async () => {
    const { activation, clock, attempts, loaded } = setUp(['org/far'], unreachable);
    const done = activation.run(live);
    await clock.advance(5000);
    loaded.add('org/far');
    await clock.advance(5000);
    await done;
    assert.equal(attempts.length, 1);
    assert.deepEqual(activation.state.completed, ['org/far']);
  });

  it('fails at once on any other fault', async () => {
    for (const code of ['quant_not_found', 'empty_repo', 'disk_full', 'does_not_fit'] as const) {
      const { activation, attempts, clock } = setUp(['a'], () => new AppError(code, `it is ${code}`));
      await activation.run(live);
      assert.equal(attempts.length, 1, code);
      assert.deepEqual(activation.state.failed, [{ model_id: 'a', error: `it is ${code}` }]);
      assert.equal(clock.pending, 0);
    }
  });

  it('stops in the middle of a wait, and leaves the rest unloaded', async () => {
    const { activation, clock, attempts } = setUp(['org/far', 'b', 'c'], unreachable);
    const stop = new AbortController();
    const done = activation.run(stop.signal);
    await clock.advance(1000);
    stop.abort(new Error('the neuron stops'));
    await done;
    assert.equal(attempts.length, 1);
    assert.equal(clock.pending, 0);
    const { failed, pending } = activation.state;
    assert.deepEqual(failed, [{ model_id: 'org/far', error: 'the neuron was stopped' }]);
    assert.deepEqual(pending, ['b', 'c']);
  });
});
