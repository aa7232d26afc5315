import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import type { LoadSpec } from 'cortex-core/wire/inference';
import { testModel } from 'testkit/test-models';
import { createDevice } from '../device/create-devices.ts';
import { planLoad, toActualMb } from './load-plan.ts';
import { checkModelFiles } from './preflight.ts';

const tiny = fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url));
const smol = testModel('SmolLM2-135M-Instruct.Q4_1.gguf');
const notLinux = process.platform === 'linux' ? false : 'reads /proc';

function residentMb(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kib) / 1024;
}

describe('the estimate of a load on the CPU', () => {
  for (const { name, file, skip, slots, context, draftFile = null } of [
    { name: 'cortex-tiny', file: tiny, skip: notLinux, slots: 4, context: 4096 },
    { name: 'cortex-tiny twice', file: tiny, skip: notLinux, slots: 4, context: 4096, draftFile: tiny },
    { name: 'SmolLM2', file: smol.file, skip: notLinux || smol.skip, slots: 1, context: 1024 },
  ]) {
    it(`is what the owner's process grows by with ${name} once its prompts are read`, { skip }, async () => {
      const { engine } = neuronConfigSchema.parse({ engine: { threads: 1 } });
      const found = {
        id: 'cpu',
        index: 0,
        name: '',
        kind: 'cpu',
        vram_total_mb: 0,
        compute_capability: null,
      };
      const device = createDevice(
        { ...found, nvidiaIndex: null, backendIndex: null },
        { deviceWorker: 'process', nativeLog: false, libraryDir: null, clock: systemClock, log: silentLog },
      );
      try {
        await device.queryVram();
        const pid = device.ownerPid ?? 0;
        const beforeMb = residentMb(pid);
        const target = { id: 'cpu', splitMode: 'none', members: [{ kind: 'cpu' }] } as const;
        const speculation = draftFile === null ? 'off' : 'ngram';
        const checked = await checkModelFiles([file]);
        const draft =
          draftFile === null
            ? null
            : { file: draftFile, identity: '', checked: await checkModelFiles([draftFile]) };
        const plan = planLoad(checked, { slots, speculation }, engine, target, file, draft);
        const estimate = plan.estimateAt(context);
        const spec: LoadSpec = {
          modelId: name,
          file,
          context,
          slots,
          devices: [],
          splitMode: 'none',
          gpuLayers: 0,
          cacheTypeK: 'f16',
          cacheTypeV: 'f16',
          batch: engine.batch,
          ubatch: engine.ubatch,
          threads: 1,
          flashAttention: null,
          lora: [],
          embeddings: false,
          prefixCacheMb: 0,
          speculation,
          draftFile,
        };
        const { handle, facts } = await device.load(spec, () => {});
        const tokens = Int32Array.from({ length: 600 }, (_, at) => 100 + ((at * 7) % 500));
        const request = {
          tokens,
          sampling: { temperature: 0 },
          maxTokens: draftFile === null ? 2 : 40,
          stops: [],
          grammar: null,
        };
        const prompts = Array.from({ length: slots }, () =>
          device.generate(handle, { ...request, topLogprobs: null, ignoreEos: true }, () => {}),
        );
        await Promise.all(prompts);
        const grownMb = residentMb(pid) - beforeMb;
        const text = `grew ${grownMb} MiB, estimate ${JSON.stringify(estimate)}`;
        assert.ok(grownMb <= 1.05 * estimate.totalMb + 8, text);
        // Compute buffers are reserved for more than these prompts touch.
        assert.ok(grownMb >= 0.7 * estimate.totalMb, text);
        const actualMb = toActualMb(facts, estimate);
        assert.ok(Math.abs(actualMb - estimate.totalMb) <= 0.05 * estimate.totalMb, `${actualMb}: ${text}`);
      } finally {
        await device.shutdown();
      }
    });
  }
});
