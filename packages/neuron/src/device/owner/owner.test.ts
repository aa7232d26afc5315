import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeEngine, generateParams, loadSpec } from '../fake-engine.test.kit.ts';
import type { FromOwner, Job, ToOwner } from '../jobs.ts';
import { Owner } from './owner.ts';

function start(firstHandle = 1) {
  const engine = new FakeEngine();
  const sent: FromOwner[] = [];
  const turns: (() => void)[] = [];
  const state = { congested: false, cancelled: 0, now: 0, ended: 0 };
  const owner = new Owner(
    {
      send: (message) => sent.push(message),
      isCongested: () => state.congested,
      cancelledLoad: () => state.cancelled,
      schedule: (turn) => turns.push(turn),
      nowMs: () => state.now,
      onEnd: () => state.ended++,
    },
    () => engine,
  );
  const options = { libraryDir: null, nativeLog: false, gpu: false };
  owner.handle({ kind: 'Start', firstHandle, options });
  let id = 0;
  const submit = (job: Job) => {
    owner.handle({ kind: 'Submit', id: ++id, job } satisfies ToOwner);
    return id;
  };
  const run = () => {
    for (let turn = turns.shift(); turn !== undefined; turn = turns.shift()) turn();
  };
  const settled = (of: number) =>
    sent.flatMap((message) => (message.kind === 'Steps' ? message.settled : [])).find((s) => s.id === of);
  return { engine, owner, sent, turns, state, submit, run, settled };
}

const load: Job = { kind: 'Load', spec: loadSpec };

test('handles start at the given number and are never reused', () => {
  const { submit, settled } = start(7);
  const first = settled(submit(load));
  assert.equal(first?.ok && (first.result as { handle: number }).handle, 7);
  submit({ kind: 'DropArch', handle: 7 });
  const second = settled(submit(load));
  assert.equal(second?.ok && (second.result as { handle: number }).handle, 8);
});

test('a job for an unknown handle fails with the documented text', () => {
  const { submit, settled } = start();
  const jobs: Job[] = [
    { kind: 'ForwardLogits', handle: 9, tokens: Int32Array.of(1), offset: 0 },
    { kind: 'ClearKv', handle: 9 },
    { kind: 'Tokenize', handle: 9, text: 'a', options: { addSpecial: true, parseSpecial: true } },
    { kind: 'Detokenize', handle: 9, tokens: Int32Array.of(1) },
    { kind: 'Generate', handle: 9, params: generateParams([1], 1) },
  ];
  for (const job of jobs) {
    const reply = settled(submit(job));
    assert.ok(reply !== undefined && !reply.ok);
    assert.equal(reply.error.code, 'job_failed');
    assert.equal(reply.error.message, `${job.kind}: no model for handle 9`);
  }
  assert.equal(settled(submit({ kind: 'DropArch', handle: 9 }))?.ok, true);
});

test('one step of all sequences of all models is one message', () => {
  const { submit, sent, turns } = start();
  submit(load);
  submit(load);
  const ids = [1, 1, 2].map((handle) => submit({ kind: 'Generate', handle, params: generateParams([1], 3) }));
  sent.length = 0;
  turns.shift()?.();
  assert.equal(sent.length, 1);
  const message = sent[0]!;
  assert.deepEqual(message.kind === 'Steps' && message.steps.map((step) => step.id), ids);
});

test('a cancel takes effect within one step', () => {
  const { owner, submit, turns, settled } = start();
  submit(load);
  const id = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 100) });
  turns.shift()?.();
  owner.handle({ kind: 'Cancel', id });
  turns.shift()?.();
  const reply = settled(id);
  assert.equal(reply?.ok && (reply.result as { finishReason: string }).finishReason, 'cancelled');
});

test('a congested sink pauses stepping until it is woken', () => {
  const { owner, state, submit, turns, run, settled } = start();
  submit(load);
  const id = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 3) });
  state.congested = true;
  run();
  assert.equal(turns.length, 0);
  assert.equal(settled(id), undefined);
  state.congested = false;
  owner.wake();
  run();
  assert.equal(settled(id)?.ok, true);
});

test('a step that throws fails its model, spares the others and never spins', () => {
  const { engine, submit, run, settled } = start();
  submit(load);
  submit(load);
  const broken = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 3) });
  const sound = submit({ kind: 'Generate', handle: 2, params: generateParams([1], 3) });
  engine.models[0]!.stepError = new Error('llama_decode returned -3');
  run();
  const reply = settled(broken);
  assert.ok(reply !== undefined && !reply.ok);
  assert.equal(reply.error.code, 'job_failed');
  assert.equal(settled(sound)?.ok, true);
});

test('dropping a model ends its streams, frees it, and frees it once', () => {
  const { engine, submit, settled } = start();
  submit(load);
  const id = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 3) });
  submit({ kind: 'DropArch', handle: 1 });
  const reply = settled(id);
  assert.ok(reply !== undefined && !reply.ok);
  assert.equal(reply.error.code, 'model_not_loaded');
  assert.equal(engine.models[0]!.closed, true);
  assert.equal(settled(submit({ kind: 'DropArch', handle: 1 }))?.ok, true);
});

test('load progress is limited in rate and always ends with 1', () => {
  const { submit, sent } = start();
  submit(load);
  const fractions = sent.flatMap((message) => (message.kind === 'Progress' ? [message.fraction] : []));
  assert.deepEqual(fractions, [0.25, 1]);
});

test('a load is given up between two progress calls, or when it ended too late', () => {
  const { engine, state, submit, settled } = start();
  engine.duringLoad = () => {
    state.cancelled = 1;
  };
  const reply = settled(submit(load));
  assert.ok(reply !== undefined && !reply.ok);
  assert.equal(reply.error.code, 'load_cancelled');
  assert.equal(engine.models.length, 0);
  engine.duringLoad = () => {};
  assert.equal(settled(submit(load))?.ok, true);
});

test('a view into a larger buffer is cut loose before it is sent', () => {
  const { submit, settled } = start();
  submit(load);
  const reply = settled(submit({ kind: 'ForwardLogits', handle: 1, tokens: Int32Array.of(1, 2), offset: 3 }));
  const logits = (reply?.ok && reply.result) as Float32Array;
  assert.deepEqual([...logits], [5, 5, 5, 5]);
  assert.equal(logits.buffer.byteLength, 16);
});

test('shutdown frees every model and the engine, once', () => {
  const { engine, owner, state, submit } = start();
  submit(load);
  owner.handle({ kind: 'Shutdown' });
  owner.close();
  assert.equal(engine.models[0]!.closed, true);
  assert.equal(engine.closed, true);
  assert.equal(state.ended, 1);
});
