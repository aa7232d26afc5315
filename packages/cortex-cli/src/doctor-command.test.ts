import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runCli } from './spawn-cli.test.kit.ts';

const skip = process.platform === 'linux' ? false : 'its nvidia-smi is a shell script';

describe('cortex doctor', { skip }, () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'doctor-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  function withSmi(script: string): Readonly<Record<string, string>> {
    writeFileSync(join(dir, 'nvidia-smi'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return { PATH: `${dir}:${process.env.PATH}`, NEURON_ENGINE__LIBLLAMA: 'cpu' };
  }

  test('shows the devices and names the package for a GPU that is not used', async () => {
    const row = '0, NVIDIA A40, 46068, 3, 46065, 0, 30, 8.6, 535.104.05';
    const env = withSmi(`[ $# -gt 0 ] && echo '${row}' || echo 'CUDA Version: 12.2 '`);
    const { code, stdout, stderr } = await runCli('cortex', ['doctor'], { env });
    assert.equal(code, 0, stderr);
    assert.match(stdout, /device 0 +cuda: NVIDIA A40, 45\.0 GiB/);
    assert.match(stdout, /device 1 +cpu: /);
    assert.match(stdout, /driver +535\.104\.05, CUDA 12\.2/);
    assert.match(
      stdout,
      /npm install --no-save @node-llama-cpp\/[\w-]+-cuda@[\d.]+ @node-llama-cpp\/[\w-]+-cuda-ext@/,
    );
    const json = await runCli('cortex', ['doctor', '--json'], { env });
    assert.equal(JSON.parse(json.stdout).devices[0].kind, 'cuda');
  });

  test('fails where there is no libllama, and says what to install or mend', async () => {
    const env = { ...withSmi('exit 127'), NEURON_LIBLLAMA_DIR: join(dir, 'nowhere') };
    const { code, stdout, stderr } = await runCli('cortex', ['doctor'], { env });
    assert.equal(code, 1);
    assert.match(stdout, /problem +the directory .*nowhere with libllama does not exist/);
    assert.equal(stderr, '');
  });
});
