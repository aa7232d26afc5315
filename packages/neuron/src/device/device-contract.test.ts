/** One suite, both transports, the real engine and real weights. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { testModel } from 'testkit/test-models';
import { writeTinyEncoder } from '../engine/tiny-encoder.test.kit.ts';
import { writeTinyMtp } from '../engine/tiny-mtp.test.kit.ts';
import { createDevice } from './create-devices.ts';
import type { OwnerDeath } from './device.ts';
import { Gone, JobFailed } from './device-errors.ts';
import { generateParams, loadSpec } from './fake-engine.test.kit.ts';
import type { OwnerDevice } from './owner-device.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..');
const tiny: LoadSpec = {
  ...loadSpec,
  modelId: 'cortex-tiny',
  file: join(root, 'models/cortex-tiny/cortex-tiny.gguf'),
  context: 256,
  // Two compute threads on two busy cores spin against each other: 0.4 s a token instead of 0.3 ms (measured here).
  threads: 1,
};
const ignore = () => {};
const raw = { addSpecial: false, parseSpecial: true };
const hasCode = (code: string) => (error: unknown) => error instanceof AppError && error.code === code;

function openDevice(deviceWorker: 'process' | 'thread'): OwnerDevice {
  return createDevice(
    {
      id: 'cpu',
      index: 0,
      name: 'CPU',
      kind: 'cpu',
      vram_total_mb: 1024,
      compute_capability: null,
      nvidiaIndex: null,
      backendIndex: null,
    },
    {
      deviceWorker,
      nativeLog: false,
      libraryDir: null,
      clock: systemClock,
      log: silentLog,
      limits: { respawnMsMin: 1 },
    },
  );
}

function largestDistance(a: Float32Array, b: Float32Array): number {
  return a.reduce((max, value, at) => Math.max(max, Math.abs(value - b[at]!)), 0);
}

/** Large enough that a load takes a while. */
const larger = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');

for (const worker of ['thread', 'process'] as const) {
  describe(`a device whose owner is a ${worker}`, () => {
    let device: OwnerDevice;
    let handle: number;
    let folder: string;
    const fractions: number[] = [];

    before(async () => {
      folder = mkdtempSync(join(tmpdir(), 'device-contract-'));
      device = openDevice(worker);
      const loaded = await device.load(tiny, ({ fraction }) => fractions.push(fraction));
      handle = loaded.handle;
      assert.equal(handle, 1);
      assert.ok(loaded.facts.vocabSize > 0);
    });
    after(async () => {
      await device.shutdown();
      rmSync(folder, { recursive: true, force: true });
    });

    test('a load reports its progress, rising, to the end', () => {
      assert.ok(fractions.length > 0);
      assert.deepEqual(
        fractions,
        [...fractions].sort((a, b) => a - b),
      );
      assert.equal(fractions.at(-1), 1);
    });

    test('QueryVram and ListDevices answer', async () => {
      const memory = await device.queryVram();
      assert.ok(memory.totalMb > 0 && memory.freeMb <= memory.totalMb);
      const devices = await device.listBackendDevices();
      assert.ok(devices.some((entry) => entry.kind === 'cpu'));
    });

    test('a vocabulary alone makes the same tokens, beside the model and after its own drop', async () => {
      const text = '<|im_start|>user\nKöln, 東京 🌡️';
      const options = { addSpecial: true, parseSpecial: true };
      const opened = await device.openVocabulary('cortex-tiny', tiny.file);
      assert.deepEqual(
        await device.tokenize(opened.handle, text, options),
        await device.tokenize(handle, text, options),
      );
      assert.notEqual(opened.facts.chatTemplate, null);
      await assert.rejects(device.generate(opened.handle, generateParams([1], 1), ignore), JobFailed);
      await device.dropArch(opened.handle);
      await assert.rejects(device.tokenize(opened.handle, text, options), JobFailed);
      assert.ok((await device.tokenize(handle, text, options)).length > 0);
    });

    test('a greedy stream arrives step by step and repeats itself', async () => {
      const run = async () => {
        const tokens: number[] = [];
        let text = '';
        const params = generateParams([...(await device.tokenize(handle, 'The capital of France', raw))], 24);
        const result = await device.generate(handle, params, (event) => {
          text += event.text;
          tokens.push(...event.tokens);
        });
        assert.equal(result.finishReason, 'length');
        assert.equal(result.usage.completionTokens, 24);
        assert.equal(tokens.length, 24);
        return { text, tokens };
      };
      const first = await run();
      assert.deepEqual(await run(), first);
      const [a, b] = await Promise.all([run(), run()]);
      assert.deepEqual(a, b);
    });

    test('tokenize and detokenize are inverse', async () => {
      const tokens = await device.tokenize(handle, 'What is it?', raw);
      assert.ok(tokens instanceof Int32Array);
      assert.equal((await device.detokenize(handle, tokens)).trim(), 'What is it?');
    });

    test('a cancel in the middle of a stream ends it as cancelled', async () => {
      const abort = new AbortController();
      let steps = 0;
      const result = await device.generate(
        handle,
        generateParams([1, 2, 3], 200),
        () => {
          if (++steps === 3) abort.abort();
        },
        abort.signal,
      );
      assert.equal(result.finishReason, 'cancelled');
      assert.ok(result.usage.completionTokens < 200);
      assert.equal(steps, 3);
    });

    test('ForwardLogits: a prefix, then one token at its offset, equals all in one go', async () => {
      const tokens = await device.tokenize(handle, 'The capital of France is Paris', raw);
      const last = tokens.length - 1;
      await device.clearKv(handle);
      const whole = await device.forwardLogits(handle, tokens, 0);
      await device.clearKv(handle);
      await device.forwardLogits(handle, tokens.subarray(0, last), 0);
      const stepwise = await device.forwardLogits(handle, tokens.subarray(last), last);
      assert.ok(whole instanceof Float32Array);
      assert.equal(whole.length, stepwise.length);
      const distance = whole.reduce((max, value, i) => Math.max(max, Math.abs(value - stepwise[i]!)), 0);
      assert.ok(distance < 1e-3, `largest difference ${distance}`);
    });

    test('an unknown handle has the documented error, a drop succeeds all the same', async () => {
      await assert.rejects(device.forwardLogits(999, Int32Array.of(1), 0), {
        code: 'job_failed',
        message: 'ForwardLogits: no model for handle 999',
      });
      await assert.rejects(device.clearKv(999), { message: 'ClearKv: no model for handle 999' });
      const other = await device.load(tiny, ignore);
      await device.dropArch(other.handle);
      await device.dropArch(other.handle);
      await assert.rejects(device.forwardLogits(other.handle, Int32Array.of(1), 0), {
        message: `ForwardLogits: no model for handle ${other.handle}`,
      });
    });

    test('a model with prediction layers drafts with them, and says what it says without', async () => {
      const file = join(folder, 'mtp.gguf');
      writeTinyMtp(file);
      const spec = { ...tiny, modelId: 'mtp', file, slots: 2, flashAttention: false };
      const asked = generateParams([10, 57, 104], 80);
      const [plain, drafting] = [
        await device.load(spec, ignore),
        await device.load({ ...spec, speculation: 'mtp' }, ignore),
      ];
      assert.deepEqual([plain.facts.drafts, drafting.facts.drafts], ['off', 'mtp']);
      const said: (readonly number[])[] = [];
      for (const { handle: model } of [plain, drafting]) {
        const tokens: number[] = [];
        const { speculation } = await device.generate(model, asked, (event) => {
          tokens.push(...event.tokens);
        });
        said.push(tokens);
        // How many pay is measured; a first one is tried everywhere.
        assert.equal((speculation?.accepted ?? 0) > 0, model === drafting.handle);
      }
      assert.deepEqual(said[1], said[0]);
      const [one, other] = [
        await device.embed(plain.handle, [asked.tokens]),
        await device.embed(drafting.handle, [asked.tokens]),
      ];
      assert.ok(largestDistance(one.vectors[0]!, other.vectors[0]!) < 1e-4);
      for (const { handle: model } of [plain, drafting]) await device.dropArch(model);
    });

    test('a drop in the middle ends what runs, reads, waits and queues on that model, and nothing else', async () => {
      const { handle: dying } = await device.load({ ...tiny, slots: 2, context: 4096 }, ignore);
      const beside = device.generate(handle, generateParams([1, 2, 3], 40), ignore);
      const long = generateParams(
        Array.from({ length: 240 }, (_, at) => 300 + at),
        3000,
      );
      let isRunning = ignore;
      const running = new Promise<void>((resolve) => {
        isRunning = resolve;
      });
      const jobs = [
        // Its first token is sent at once; thousands are to come.
        device.generate(dying, generateParams([1, 2, 3], 3000), () => isRunning()),
        device.generate(dying, long, ignore),
        device.generate(dying, long, ignore),
        device.embed(
          dying,
          Array.from({ length: 2000 }, () => new Int32Array(250).fill(30)),
        ),
      ];
      const ends = jobs.map((job) => assert.rejects(job, hasCode('model_not_loaded')));
      await running;
      await device.dropArch(dying);
      await Promise.all(ends);
      assert.equal((await beside).usage.completionTokens, 40);
      await assert.rejects(device.generate(dying, long, ignore), JobFailed);
      await device.dropArch(dying);
    });

    test('an embedding model gives a vector per input, and a plain decoder does too', async () => {
      const file = join(folder, 'mean.gguf');
      writeTinyEncoder(file, { pooling: 'mean' });
      const encoder = await device.load({ ...tiny, modelId: 'mean', file, context: 64 }, ignore);
      assert.equal(encoder.facts.pooling, 'mean');
      const inputs = Array.from({ length: 20 }, (_, at) => Int32Array.of(2, 5 + at, 3));
      const many = await device.embed(encoder.handle, inputs);
      assert.equal(many.promptTokens, 60);
      assert.ok(many.vectors.every((vector) => vector instanceof Float32Array && vector.length === 32));
      const one = await device.embed(encoder.handle, inputs.slice(7, 8));
      assert.ok(largestDistance(one.vectors[0]!, many.vectors[7]!) < 1e-4);
      const plain = await device.embed(handle, [await device.tokenize(handle, 'The sea is blue', raw)]);
      assert.ok(plain.vectors[0]!.some((value) => value !== 0));
      await device.dropArch(encoder.handle);
    });

    test('a reranker scores its inputs, other models refuse to', async () => {
      const file = join(folder, 'rank.gguf');
      writeTinyEncoder(file, { pooling: 'rank' });
      const ranker = await device.load({ ...tiny, modelId: 'rank', file, context: 64 }, ignore);
      const pairs = [Int32Array.of(2, 7, 3, 9, 3), Int32Array.of(2, 7, 3, 12, 3)];
      const { scores, promptTokens } = await device.rank(ranker.handle, pairs);
      assert.equal(promptTokens, 10);
      assert.ok(scores instanceof Float32Array && scores.length === 2 && scores[0] !== scores[1]);
      await assert.rejects(device.rank(handle, pairs), hasCode('wrong_modality'));
      await assert.rejects(device.embed(ranker.handle, pairs), hasCode('wrong_modality'));
      await assert.rejects(
        device.generate(ranker.handle, generateParams([2, 7], 2), ignore),
        hasCode('wrong_modality'),
      );
      await device.dropArch(ranker.handle);
    });

    test('bad inputs of an embedding are refused by name, and the next job works', async () => {
      const cases: [readonly Int32Array[], string, string][] = [
        [[], 'invalid_request', 'input'],
        [[Int32Array.of(5), new Int32Array(0)], 'invalid_request', 'input.1'],
        [[new Int32Array(257).fill(5)], 'context_length_exceeded', 'input.0'],
        [[Int32Array.of(-1)], 'invalid_request', 'tokens'],
      ];
      for (const [inputs, code, param] of cases) {
        await assert.rejects(device.embed(handle, inputs), { code, param });
      }
      assert.ok((await device.tokenize(handle, 'a', raw)).length > 0);
    });

    test('an embedding that is given up frees the owner for the next', async () => {
      const abort = new AbortController();
      const inputs = Array.from({ length: 2000 }, () => new Int32Array(250).fill(30));
      const embedding = device.embed(handle, inputs, abort.signal);
      await device.queryVram();
      abort.abort(new AppError('request_timeout', 'the client left'));
      await assert.rejects(embedding, hasCode('request_timeout'));
      const next = await device.embed(handle, [Int32Array.of(30)]);
      assert.equal(next.vectors.length, 1);
    });

    test('a KV snapshot brings the sequence back, and an unknown one is refused', async () => {
      const tokens = await device.tokenize(handle, 'The capital of France is Paris', raw);
      await device.forwardLogits(handle, tokens, 0);
      const snapshot = await device.snapshotKv(handle);
      assert.equal(snapshot.length, tokens.length);
      assert.ok(snapshot.bytes > 0);
      const expected = await device.forwardLogits(handle, Int32Array.of(40), tokens.length);
      await device.forwardLogits(handle, Int32Array.of(60, 61, 62), 0);
      assert.deepEqual(await device.restoreKv(handle, snapshot.id), snapshot);
      const again = await device.forwardLogits(handle, Int32Array.of(40), tokens.length);
      assert.ok(largestDistance(again, expected) < 1e-4);
      assert.deepEqual(await device.dropKvSnapshot(handle, snapshot.id), snapshot);
      for (const job of [device.restoreKv(handle, snapshot.id), device.dropKvSnapshot(handle, snapshot.id)]) {
        await assert.rejects(job, { code: 'invalid_request', param: 'id' });
      }
    });

    test('a model goes on in another owner: its load, its facts, its answers', async () => {
      const other = openDevice(worker);
      try {
        const params = generateParams(
          [...(await device.tokenize(handle, 'The capital of '.repeat(15), raw))],
          12,
        );
        const textOf = async (where: OwnerDevice, at: number) => {
          let text = '';
          const { usage } = await where.generate(at, params, (event) => {
            text += event.text;
          });
          return { text, cachedTokens: usage.cachedTokens };
        };
        const here = await textOf(device, handle);
        const exported = await device.exportArch(handle);
        assert.equal(exported.spec.file, tiny.file);
        const seen: number[] = [];
        const moved = await other.transferIn(exported, ({ fraction }) => seen.push(fraction));
        assert.equal(moved.handle, 1);
        assert.equal(seen.at(-1), 1);
        assert.deepEqual((await device.exportArch(handle)).spec, exported.spec);
        const there = await textOf(other, moved.handle);
        assert.equal(there.text, here.text);
        assert.equal(there.cachedTokens, params.tokens.length - 1, 'its prefixes came along');
        assert.equal(moved.facts.context, tiny.context);
        await other.dropArch(moved.handle);
      } finally {
        await other.shutdown();
      }
    });

    test('a transfer is cancelled like a load, and one of a broken file fails like one', async () => {
      const exported = await device.exportArch(handle);
      const abort = new AbortController();
      await assert.rejects(
        device.transferIn(exported, () => abort.abort(), abort.signal),
        hasCode('load_cancelled'),
      );
      const spec = { ...exported.spec, file: join(folder, 'none.gguf') };
      await assert.rejects(device.transferIn({ ...exported, spec }, ignore), hasCode('model_file_not_found'));
      assert.ok((await device.tokenize(handle, 'a', raw)).length > 0);
    });

    test('a restarted owner is fresh: its handles are gone, the next load serves', async () => {
      const short = openDevice(worker);
      try {
        const deaths: OwnerDeath[] = [];
        short.onOwnerDeath((death) => deaths.push(death));
        const first = await short.load(tiny, ignore);
        const exported = await short.exportArch(first.handle);
        await short.restartOwner();
        assert.deepEqual([deaths.length, deaths[0]?.cause, deaths[0]?.lostHandles], [1, 'restarted', [1]]);
        await assert.rejects(short.tokenize(first.handle, 'a', raw), Gone);
        await short.dropArch(first.handle);
        const second = await short.transferIn(exported, ignore);
        assert.equal(second.handle, first.handle + 1);
        const result = await short.generate(second.handle, generateParams([1, 2], 2), ignore);
        assert.equal(result.finishReason, 'length');
      } finally {
        await short.shutdown();
      }
    });

    test('a job that fails says so under its class, for every job of an unknown handle', async () => {
      const one = Int32Array.of(1);
      const jobs: Record<string, Promise<unknown>> = {
        Export: device.exportArch(999),
        Embed: device.embed(999, [one]),
        Rank: device.rank(999, [one]),
        SnapshotKv: device.snapshotKv(999),
        RestoreKv: device.restoreKv(999, 1),
        DropKvSnapshot: device.dropKvSnapshot(999, 1),
        Tokenize: device.tokenize(999, 'a', raw),
        Detokenize: device.detokenize(999, one),
        Generate: device.generate(999, generateParams([1], 1), ignore),
      };
      for (const [kind, job] of Object.entries(jobs)) {
        await assert.rejects(job, (error) => {
          assert.ok(error instanceof JobFailed, kind);
          assert.equal(error.message, `${kind}: no model for handle 999`);
          return true;
        });
      }
    });

    test('a broken file is invalid_model_file and the next job works', async () => {
      const bytes = readFileSync(tiny.file);
      const broken = {
        half: bytes.subarray(0, bytes.length / 2),
        empty: Buffer.alloc(0),
        text: 'not a model',
      };
      for (const [name, content] of Object.entries(broken)) {
        const file = join(folder, `${name}.gguf`);
        writeFileSync(file, content);
        await assert.rejects(
          device.load({ ...tiny, modelId: name, file }, ignore),
          hasCode('invalid_model_file'),
        );
        assert.ok((await device.tokenize(handle, 'a', raw)).length > 0);
      }
      const result = await device.generate(handle, generateParams([1, 2], 2), ignore);
      assert.equal(result.finishReason, 'length');
    });

    test('a load is cancelled or dropped again, and the next one works', async () => {
      const abort = new AbortController();
      const load = device.load(tiny, () => abort.abort(), abort.signal);
      await assert.rejects(load, hasCode('load_cancelled'));
      const next = await device.load(tiny, ignore);
      await device.dropArch(next.handle);
    });

    test('a load under way stops in the middle', { skip: larger.skip }, async () => {
      const abort = new AbortController();
      const seen: number[] = [];
      const spec = { ...tiny, modelId: 'larger', file: larger.file };
      const load = device.load(
        spec,
        ({ fraction }) => {
          seen.push(fraction);
          abort.abort();
        },
        abort.signal,
      );
      await assert.rejects(load, hasCode('load_cancelled'));
      assert.ok(seen.length === 1 && seen[0]! < 1, `progress ${seen}`);
      assert.ok((await device.tokenize(handle, 'a', raw)).length > 0);
    });

    test('16 concurrent jobs drain across shutdown, later ones find the device gone', async () => {
      const short = openDevice(worker);
      const loaded = await short.load(tiny, ignore);
      const jobs = Array.from({ length: 16 }, (_, i) =>
        i % 2 === 0
          ? short.generate(loaded.handle, generateParams([1, 2, i], 8), ignore)
          : short.tokenize(loaded.handle, 'drain', raw),
      );
      const closed = short.shutdown();
      await assert.rejects(short.queryVram(), hasCode('device_gone'));
      assert.equal((await Promise.all<unknown>(jobs)).length, 16);
      await closed;
      assert.equal(short.ownerPid, null);
      await short.dropArch(loaded.handle);
    });
  });
}

test('kill -9 of an owner process in the middle of a stream: rejected, reported, respawned', async () => {
  const device = openDevice('process');
  try {
    const { handle } = await device.load(tiny, ignore);
    const died = new Promise<OwnerDeath>((resolve) => device.onOwnerDeath(resolve));
    const pid = device.ownerPid!;
    // What a terminal's Ctrl-C and a service manager's stop send to the whole group is not for the owner.
    process.kill(pid, 'SIGINT');
    process.kill(pid, 'SIGTERM');
    await device.queryVram();
    let killed = false;
    const stream = device.generate(handle, generateParams([1, 2, 3], 250), () => {
      if (!killed) killed = process.kill(pid, 'SIGKILL');
    });
    await assert.rejects(stream, (error: AppError) => {
      assert.equal(error.code, 'device_gone');
      assert.equal(error.retryable, true);
      return true;
    });
    const death = await died;
    assert.equal(death.cause, 'signal SIGKILL');
    assert.deepEqual(death.lostHandles, [handle]);
    assert.deepEqual(death.busyHandles, [handle]);
    const next = await device.load(tiny, ignore);
    assert.equal(next.handle, handle + 1);
    assert.notEqual(device.ownerPid, pid);
    const result = await device.generate(next.handle, generateParams([1, 2, 3], 4), ignore);
    assert.equal(result.finishReason, 'length');
  } finally {
    await device.shutdown();
  }
});
