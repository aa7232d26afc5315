import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { distDir } from './terminal.ts';
import { buildUpConfig, withLocalNeuron } from './up-config.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-up-config-'));
after(() => rmSync(dir, { recursive: true }));
const around = { cwd: dir, env: {}, installedAt: distDir };

test('up without options is a gateway and a neuron on loopback with the model that ships', () => {
  const config = buildUpConfig({}, around);
  assert.equal(config.gateway.gateway.listen, '127.0.0.1:31313');
  assert.equal(config.gateway.gateway.metrics_listen, '127.0.0.1:31314');
  assert.equal(config.nodes[0]?.config.listen, '127.0.0.1');
  assert.equal(config.nodes[0]?.config.port, 13131);
  assert.deepEqual(config.required, ['cortex-tiny']);
  assert.deepEqual(
    config.nodes[0]?.config.default_models.map((spec) => spec.model_id),
    ['cortex-tiny'],
  );
  assert.match(config.nodes[0]?.config.models.dirs[0] ?? '', /models\/cortex-tiny$/);
});

test('flags win over the file, and the file over the defaults of up', () => {
  const file = join(dir, 'my-cortex.toml');
  writeFileSync(file, '[gateway]\nlisten = "0.0.0.0:9000"\npoll_interval_secs = 5\n');
  const plain = buildUpConfig({ config: file }, around).gateway.gateway;
  assert.equal(plain.listen, '0.0.0.0:9000');
  assert.equal(plain.poll_interval_secs, 5);
  assert.equal(buildUpConfig({ config: file, port: 0 }, around).gateway.gateway.listen, '0.0.0.0:0');
  assert.equal(buildUpConfig({ host: '::1' }, around).gateway.gateway.listen, '[::1]:31313');
});

test('--model replaces the model that ships and puts its folder first', () => {
  const file = join(dir, 'own.gguf');
  writeFileSync(file, 'GGUF');
  const config = buildUpConfig(
    { model: [file, 'some/id', file], memoryMb: 512, deviceWorker: 'thread' },
    around,
  );
  assert.deepEqual(config.required, ['own', 'some/id']);
  assert.equal(config.nodes[0]?.config.models.dirs[0], dir);
  assert.equal(config.nodes[0]?.config.cpu.memory_mb, 512);
  assert.equal(config.nodes[0]?.config.device_worker, 'thread');
});

test('default_models of a neuron.toml are loaded instead of the model that ships', () => {
  const file = join(dir, 'neuron.toml');
  writeFileSync(file, '[[default_models]]\nmodel_id = "theirs"\n[models]\ndirs = ["weights"]\n');
  const config = buildUpConfig({ neuronConfig: file }, around);
  assert.deepEqual(
    config.nodes[0]?.config.default_models.map((spec) => spec.model_id),
    ['theirs'],
  );
  assert.deepEqual(config.required, []);
  assert.equal(config.nodes[0]?.config.models.dirs[0], join(dir, 'weights'));
});

test('the local neuron gets a name that is free, once', () => {
  const { gateway } = buildUpConfig({}, around);
  const once = withLocalNeuron(gateway, 'http://127.0.0.1:1', 'beast');
  const twice = withLocalNeuron(once, 'http://127.0.0.1:2', 'beast');
  assert.deepEqual(
    twice.neurons.map((neuron) => neuron.name),
    ['beast', 'beast-2'],
  );
  assert.equal(withLocalNeuron(twice, 'http://127.0.0.1:2', 'beast'), twice);
});
