/** A whole neuron whose device owners abort, hang and are replaced, as its clients see it. */
import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { SseParser } from 'cortex-core/wire/sse';
import { createDevice } from '../device/create-devices.ts';
import type { OwnerDevice } from '../device/owner-device.ts';
import { writeTinyEncoder } from '../engine/tiny-encoder.test.kit.ts';
import { type Neuron, startNeuron } from '../neuron.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'owner-life-'));
  for (const name of ['a', 'b']) await copyFile(tiny, join(dir, `${name}.gguf`));
});
after(() => rm(dir, { recursive: true }));

/** A test machine may starve an owner for seconds: it is not to be taken for one that hangs. */
const hangStepSecs = 5;

function toConfig(stepTimeoutSecs = 120) {
  return neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    device_worker: 'process',
    engine: { threads: 1, context: 512, step_timeout_secs: stepTimeoutSecs },
    cpu: { memory_mb: 2000 },
    models: { dirs: [dir], hf_cache: join(dir, 'none') },
  });
}

async function withFault(fault: string, run: (neuron: Neuron) => Promise<void>): Promise<void> {
  const config = toConfig(fault.startsWith('hang') ? hangStepSecs : 120);
  const neuron = await startNeuron(config, { log: silentLog, env: { NEURON_FAULT: fault } });
  try {
    await run(neuron);
  } finally {
    await neuron.close();
  }
}

const question = (model: string) => ({
  model,
  messages: [{ role: 'user', content: 'What is the capital of France?' }],
  temperature: 0,
});
const endless = (model: string) => ({ ...question(model), stream: true, ignore_eos: true, max_tokens: 400 });

function post(neuron: Neuron, path: string, body: unknown): Promise<Response> {
  return fetch(`${neuron.url}${path}`, { method: 'POST', body: JSON.stringify(body) });
}

async function load(neuron: Neuron, model_id: string, devices?: number[]): Promise<void> {
  const response = await post(neuron, '/models/load', { model_id, ...(devices ? { devices } : {}) });
  assert.equal(response.status, 200, await response.text());
}

/** As clients do: a model that comes back is asked for again, however long a busy machine takes for it. */
async function askBack(neuron: Neuron, model: string): Promise<Response> {
  for (;;) {
    const response = await post(neuron, '/v1/chat/completions', question(model));
    if (response.status !== 503) return response;
    if ((await codeOf(response.clone()))[1] !== 'model_recovering') return response;
  }
}

async function ask(neuron: Neuron, model: string): Promise<string> {
  const response = await askBack(neuron, model);
  assert.equal(response.status, 200, await response.clone().text());
  const body = (await response.json()) as { choices: [{ message: { content: string } }] };
  return body.choices[0].message.content;
}

async function codeOf(response: Response): Promise<[number, string]> {
  const body = (await response.json()) as { error: { code: string }; code?: string };
  return [response.status, body.code ?? body.error.code];
}

async function readStream(response: Response): Promise<string[]> {
  const parser = new SseParser();
  const data: string[] = [];
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    for (const event of parser.push(bytes)) data.push(event.data);
  }
  return data;
}

/** Text came, then an error; nothing that a client could take for the end of a whole answer. */
function assertCutShort(data: readonly string[], code: string): void {
  const chunks = data.map((each) => JSON.parse(each) as Record<string, unknown>);
  assert.equal((chunks.at(-1)?.error as { code?: string } | undefined)?.code, code, data.at(-1));
  const choices = chunks.flatMap((chunk) => (chunk.choices ?? []) as { finish_reason: string | null }[]);
  assert.ok(choices.length > 1);
  assert.ok(choices.every((choice) => choice.finish_reason === null));
}

async function statusOf(neuron: Neuron, id: string): Promise<string | undefined> {
  const models = (await (await fetch(`${neuron.url}/models`)).json()) as { id: string; status: string }[];
  return models.find((model) => model.id === id)?.status;
}

describe('faults as a client sees them', () => {
  for (const fault of ['abort', 'hang']) {
    it(`${fault}s in the middle of a stream: an error, no false end, and the next request is served`, async () => {
      await withFault(`${fault}:step=6,lives=1`, async (neuron) => {
        await load(neuron, 'a');
        await load(neuron, 'b');
        const data = await readStream(await post(neuron, '/v1/chat/completions', endless('a')));
        assertCutShort(data, 'device_gone');
        const [a, b] = await Promise.all([ask(neuron, 'a'), ask(neuron, 'b')]);
        assert.match(a, /Paris/);
        assert.equal(a, b);
      });
    });
  }

  it('garbage logits fail that request, and neither its neighbour nor the next', async () => {
    await withFault('nan:step=5,model=a', async (neuron) => {
      await load(neuron, 'a');
      await load(neuron, 'b');
      const [a, b] = await Promise.all([
        post(neuron, '/v1/chat/completions', endless('a')),
        ask(neuron, 'b'),
      ]);
      assertCutShort(await readStream(a), 'logits_not_finite');
      assert.equal(await ask(neuron, 'a'), b);
    });
  });

  it('a model that kills its owner three times is poisoned until it is loaded by name', async () => {
    await withFault('abort:step=1,model=a,lives=3', async (neuron) => {
      await load(neuron, 'a');
      await load(neuron, 'b');
      for (let death = 1; death <= 3; death++) {
        const response = await askBack(neuron, 'a');
        assert.deepEqual(await codeOf(response), [503, 'device_gone'], `death ${death}`);
        assert.notEqual(response.headers.get('retry-after'), null);
        // Who only shares the device is back after each.
        assert.match(await ask(neuron, 'b'), /Paris/);
      }
      const refused = await askBack(neuron, 'a');
      assert.deepEqual(await codeOf(refused), [503, 'model_poisoned']);
      assert.equal(await statusOf(neuron, 'a'), 'poisoned');
      await load(neuron, 'a');
      assert.match(await ask(neuron, 'a'), /Paris/);
    });
  });

  it('a model that was at work beside the one that kills the owner is not blamed for it', async () => {
    await withFault('abort:step=2,model=a,lives=3', async (neuron) => {
      await load(neuron, 'a');
      await load(neuron, 'b');
      for (let death = 1; death <= 3; death++) {
        const beside = [1, 2, 3].map(() => post(neuron, '/v1/chat/completions', endless('b')));
        const response = await askBack(neuron, 'a');
        assert.deepEqual(await codeOf(response), [503, 'device_gone'], `death ${death}`);
        for (const each of beside) await (await each).text(); // cut short, or done before
      }
      assert.match(await ask(neuron, 'b'), /Paris/);
      assert.equal(await statusOf(neuron, 'a'), 'poisoned');
      assert.equal(await statusOf(neuron, 'b'), 'loaded');
    });
  });

  it('a model whose load kills the owner is poisoned after three, and nobody who was running is', async () => {
    await withFault('load_abort:model=a', async (neuron) => {
      await load(neuron, 'b');
      for (const code of ['device_gone', 'device_gone', 'model_poisoned']) {
        const beside = [1, 2, 3].map(() => post(neuron, '/v1/chat/completions', endless('b')));
        const refused = await post(neuron, '/models/load', { model_id: 'a' });
        assert.deepEqual(await codeOf(refused), [503, code]);
        for (const each of beside) await (await each).text(); // cut short, or done before
      }
      assert.equal(await statusOf(neuron, 'a'), 'poisoned');
      assert.match(await ask(neuron, 'b'), /Paris/);
    });
  });

  it('a load that takes ten minutes is cancelled by an unload, and others load', async () => {
    await withFault('slow_load:ms=600000,model=a', async (neuron) => {
      const loading = post(neuron, '/models/load', { model_id: 'a' });
      while ((await statusOf(neuron, 'a')) !== 'loading')
        await new Promise((resolve) => setImmediate(resolve));
      const unloaded = await post(neuron, '/models/unload', { model_id: 'a' });
      assert.equal(unloaded.status, 200);
      assert.deepEqual(await codeOf(await loading), [409, 'load_cancelled']);
      await load(neuron, 'b');
      assert.match(await ask(neuron, 'b'), /Paris/);
    });
  });

  it('a load that finds no memory is refused as such, and a later one succeeds', async () => {
    await withFault('load_oom:model=a', async (neuron) => {
      await load(neuron, 'b');
      assert.deepEqual(await codeOf(await post(neuron, '/models/load', { model_id: 'a' })), [
        503,
        'insufficient_vram',
      ]);
      assert.equal(await statusOf(neuron, 'a'), 'available');
      assert.match(await ask(neuron, 'b'), /Paris/);
    });
  });

  it('a thread that hangs: its models are listed as not servable, and nobody waits', async () => {
    const config = { ...toConfig(hangStepSecs), device_worker: 'thread' as const };
    const neuron = await startNeuron(config, { log: silentLog, env: { NEURON_FAULT: 'hang:step=3' } });
    try {
      await load(neuron, 'a');
      assertCutShort(
        await readStream(await post(neuron, '/v1/chat/completions', endless('a'))),
        'device_poisoned',
      );
      const next = await post(neuron, '/v1/chat/completions', question('a'));
      assert.deepEqual(await codeOf(next), [503, 'device_poisoned']);
      const [model] = (await (await fetch(`${neuron.url}/models`)).json()) as { servable?: unknown }[];
      assert.deepEqual(model?.servable, {
        ok: false,
        reason: 'device_poisoned',
        detail: 'its device cpu is poisoned; restart the neuron',
      });
      assert.equal((await post(neuron, '/models/unload', { model_id: 'a' })).status, 200);
    } finally {
      await neuron.close();
    }
  });

  it('an embedding model loads, and a chat with it is refused with what it is', async () => {
    writeTinyEncoder(join(dir, 'vectors.gguf'), { pooling: 'mean' });
    await withFault('', async (neuron) => {
      await load(neuron, 'vectors');
      const chat = await post(neuron, '/v1/completions', { model: 'vectors', prompt: 'the cat' });
      assert.deepEqual(await codeOf(chat), [400, 'wrong_modality']);
      const { device, handle } = neuron.registry.serving('vectors');
      const options = { addSpecial: true, parseSpecial: false };
      const [cat, dog] = [
        await device.tokenize(handle, 'the cat', options),
        await device.tokenize(handle, 'a dog', options),
      ];
      assert.deepEqual([...cat], [2, 5, 7, 3]);
      const { vectors } = await device.embed(handle, [cat, dog]);
      assert.deepEqual(
        vectors.map((vector) => vector.length),
        [32, 32],
      );
    });
  });

  it('a fault that cannot be read keeps the neuron from starting', async () => {
    const env = { NEURON_FAULT: 'abort' };
    await assert.rejects(startNeuron(toConfig(), { log: silentLog, env }), {
      name: 'ConfigError',
      message: 'environment NEURON_FAULT: abort needs step: abort:step=1',
    });
  });
});

describe('models that move', () => {
  let neuron: Neuron;
  let owners: readonly OwnerDevice[];

  before(async () => {
    owners = [0, 1].map((index) =>
      createDevice(
        {
          id: `cpu:${index}`,
          index,
          name: 'CPU',
          kind: 'cpu',
          vram_total_mb: 1000,
          compute_capability: null,
          nvidiaIndex: null,
          backendIndex: null,
        },
        { deviceWorker: 'process', nativeLog: false, libraryDir: null, clock: systemClock, log: silentLog },
      ),
    );
    const devices = owners.map((device, at) => ({ indices: [at], kind: 'cpu', device, budgetMb: 1000 }));
    neuron = await startNeuron(toConfig(), { log: silentLog, env: {}, devices });
    await load(neuron, 'a', [0]);
  });
  after(() => neuron.close());

  const devicesOf = async (id: string) => {
    const models = (await (await fetch(`${neuron.url}/models`)).json()) as {
      id: string;
      devices: number[];
    }[];
    return models.find((model) => model.id === id)?.devices;
  };

  it('move while streams run: each answer is whole, the model serves on the other device', async () => {
    const expected = await ask(neuron, 'a');
    const stream = await post(neuron, '/v1/chat/completions', { ...question('a'), stream: true });
    const moving = post(neuron, '/models/move', { model_id: 'a', devices: [1] });
    const answers = Promise.all([1, 2, 3].map(() => ask(neuron, 'a')));
    const data = await readStream(stream);
    assert.equal(data.at(-1), '[DONE]');
    assert.deepEqual(await (await moving).json(), { status: 'moved' });
    assert.deepEqual(await answers, [expected, expected, expected]);
    assert.deepEqual(await devicesOf('a'), [1]);
    assert.equal(await ask(neuron, 'a'), expected);
    // The old owner is free of it: killing that one disturbs nobody.
    process.kill(owners[0]?.ownerPid as number, 'SIGKILL');
    assert.equal(await ask(neuron, 'a'), expected);
  });

  it('what cannot be moved is refused, and serves on', async () => {
    const cases: [unknown, number, string][] = [
      [{ model_id: 'nope', devices: [0] }, 404, 'model_not_loaded'],
      [{ model_id: 'a', devices: [7] }, 400, 'invalid_request'],
      [{ model_id: 'a', devices: [] }, 422, 'invalid_request_body'],
      [{ model_id: 'a' }, 422, 'invalid_request_body'],
      [{ model_id: 'a', devices: [0], force: true }, 422, 'invalid_request_body'],
    ];
    for (const [body, status, code] of cases) {
      assert.deepEqual(await codeOf(await post(neuron, '/models/move', body)), [status, code]);
    }
    const unknown = await post(neuron, '/devices/recycle', { device: 7 });
    const { error } = (await unknown.json()) as { error: string };
    assert.deepEqual([unknown.status, error], [400, 'there is no device 7; this machine has 0, 1']);
    assert.match(await ask(neuron, 'a'), /Paris/);
  });

  it('a recycled device has a fresh process, and its models answer as before', async () => {
    await load(neuron, 'b', [1]);
    const pid = owners[1]?.ownerPid;
    const expected = await ask(neuron, 'a');
    const recycling = post(neuron, '/devices/recycle', { device: 1 });
    const waiting = ask(neuron, 'a');
    const report = (await (await recycling).json()) as { status: string; transferred: string[] };
    assert.deepEqual(
      { ...report, transferred: [...report.transferred].sort() },
      { status: 'recycled', transferred: ['a', 'b'], reloaded: [], failed: [] },
    );
    assert.notEqual(owners[1]?.ownerPid, pid);
    assert.equal(await waiting, expected);
    assert.equal(await ask(neuron, 'b'), expected);
  });
});
