import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ExportedArch } from 'cortex-core/wire/inference';
import { FakeEngine, generateParams, loadSpec } from '../fake-engine.test.kit.ts';
import type { FromOwner, Job, ToOwner } from '../jobs.ts';
import { Owner } from './owner.ts';

function start(firstHandle = 1, gpu = false) {
  const engine = new FakeEngine();
  const sent: FromOwner[] = [];
  const turns: (() => void)[] = [];
  const rests: number[] = [];
  const state = { congested: false, cancelled: 0, now: 0, ended: 0, at: -1 };
  const owner = new Owner(
    {
      send: (message) => sent.push(message),
      isCongested: () => state.congested,
      cancelledLoad: () => state.cancelled,
      workingOn: (handle) => {
        state.at = handle;
      },
      schedule: (turn) => turns.push(turn),
      nowMs: () => state.now,
      rest: (ms) => rests.push(ms),
      onEnd: () => state.ended++,
    },
    () => engine,
  );
  const options = { libraryDir: null, nativeLog: false, gpu, faults: [] };
  owner.handle({ kind: 'Start', firstHandle, life: 1, options });
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
  return { engine, owner, sent, turns, state, rests, submit, run, settled };
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

test('after the first token of a stream a CPU is left to whoever sends it, a GPU is not', () => {
  for (const gpu of [false, true]) {
    const { submit, turns, rests } = start(1, gpu);
    submit(load);
    submit({ kind: 'Generate', handle: 1, params: generateParams([1], 9) });
    turns.shift()?.();
    assert.equal(rests.length, 1);
    assert.equal((rests[0] ?? 0) > 0, !gpu);
    turns.shift()?.();
    assert.equal(rests.length, 1);
    submit({ kind: 'Generate', handle: 1, params: generateParams([1], 9) });
    turns.shift()?.();
    assert.equal(rests.length, 2);
  }
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

test('embeddings queue behind each other and beside streams, a step each', () => {
  const { submit, turns, settled } = start();
  submit(load);
  const inputs = [Int32Array.of(1), Int32Array.of(2)];
  const first = submit({ kind: 'Embed', handle: 1, inputs });
  const second = submit({ kind: 'Rank', handle: 1, inputs });
  const stream = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 3) });
  const done = () => [first, second, stream].map((id) => settled(id)?.ok ?? null);
  turns.shift()?.();
  assert.deepEqual(done(), [null, null, null]);
  turns.shift()?.();
  assert.deepEqual(done(), [true, null, null]);
  turns.shift()?.();
  assert.deepEqual(done(), [true, true, true]);
  assert.equal(turns.length, 0);
});

test('an embedding that is cancelled, fails or loses its model leaves the queue', () => {
  const { engine, owner, submit, run, turns, settled } = start();
  submit(load);
  submit(load);
  const inputs = [Int32Array.of(1), Int32Array.of(2)];
  const ids = [1, 2, 1].map((handle) => submit({ kind: 'Embed', handle, inputs }));
  owner.handle({ kind: 'Cancel', id: ids[0]! });
  submit({ kind: 'DropArch', handle: 2 });
  engine.models[0]!.stepError = new Error('llama_decode returned -3');
  run();
  assert.equal(turns.length, 0);
  assert.equal(settled(ids[0]!), undefined);
  const [lost, failed] = [settled(ids[1]!), settled(ids[2]!)];
  assert.ok(lost?.ok === false && failed?.ok === false);
  assert.equal(lost.error.code, 'model_not_loaded');
  assert.equal(failed.error.code, 'job_failed');
});

test('an owner at work that has nothing to say still says that it lives, once a second', () => {
  const { engine, state, submit, turns, sent } = start();
  submit(load);
  submit({ kind: 'Embed', handle: 1, inputs: Array.from({ length: 9 }, () => Int32Array.of(1)) });
  sent.length = 0;
  for (let step = 0; step < 8; step++) {
    state.now += 400;
    turns.shift()?.();
  }
  assert.deepEqual(
    sent.map((message) => message.kind),
    ['Alive', 'Alive'],
  );
  assert.equal(engine.models.length, 1);
});

test('a transfer loads the spec and warms it, or goes on cold', () => {
  const { engine, submit, settled } = start();
  submit(load);
  engine.models[0]!.prefixes = [{ tokens: Int32Array.of(1, 2), state: new Uint8Array(8) }];
  const reply = settled(submit({ kind: 'Export', handle: 1 }));
  const exported = (reply?.ok && reply.result) as ExportedArch;
  assert.deepEqual(exported.spec, loadSpec);
  assert.equal(exported.prefixes.length, 1);
  const moved = settled(submit({ kind: 'TransferIn', exported }));
  assert.equal(moved?.ok && (moved.result as { handle: number }).handle, 2);
  assert.deepEqual(engine.models[1]!.prefixes, exported.prefixes);
  engine.duringLoad = () => {
    engine.importError = new Error('another cache type');
  };
  assert.equal(settled(submit({ kind: 'TransferIn', exported }))?.ok, true);
  assert.equal(engine.models[2]!.prefixes.length, 0);
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
  const { engine, owner, state, submit, settled } = start();
  submit(load);
  const running = submit({ kind: 'Generate', handle: 1, params: generateParams([1], 9) });
  owner.handle({ kind: 'Shutdown' });
  owner.close();
  const reply = settled(running);
  assert.equal(reply?.ok === false && reply.error.code, 'device_gone');
  assert.equal(engine.models[0]!.closed, true);
  assert.equal(engine.closed, true);
  assert.equal(state.ended, 1);
});

test('it says which model it is at, and none while it loads another', () => {
  const { engine, state, submit, turns } = start();
  submit(load);
  submit(load);
  const at: number[] = [];
  for (const model of engine.models) {
    const step = model.step.bind(model);
    model.step = () => {
      at.push(state.at);
      step();
    };
  }
  submit({ kind: 'Generate', handle: 1, params: generateParams([1], 3) });
  submit({ kind: 'Generate', handle: 2, params: generateParams([1], 3) });
  turns.shift()?.();
  assert.deepEqual(at, [1, 2]);
  submit(load);
  assert.equal(state.at, 0);
  submit({ kind: 'Embed', handle: 1, inputs: [Int32Array.of(1)] });
  submit({ kind: 'ClearKv', handle: 2 });
  assert.equal(state.at, 2);
});
