/** A neuron with cortex-tiny loaded on a device that does what the test says, and requests that can be left. */
import assert from 'node:assert/strict';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { neuronConfigSchema } from 'cortex-core/config/neuron-config';
import { silentLog } from 'cortex-core/daemon/log';
import type { Device } from '../device/device.ts';
import { type Neuron, type NeuronOptions, startNeuron } from '../neuron.ts';

export const tiny = fileURLToPath(
  new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url),
);

/** Of the least that it can be asked. */
export const chat = { model: 'cortex-tiny', messages: [{ role: 'user', content: 'hello' }] };

/** `over`: keys of the configuration. `device`: null = the machine's own. */
export async function startTiny(
  device: Device | null,
  over: Readonly<Record<string, unknown>> = {},
  more: Pick<NeuronOptions, 'clock' | 'fetch'> = {},
): Promise<Neuron> {
  const config = neuronConfigSchema.parse({
    listen: '127.0.0.1',
    port: 0,
    engine: { threads: 1 },
    models: { hf_cache: join(tmpdir(), 'no-such-hub') },
    default_models: [{ model_id: tiny }],
    ...over,
  });
  const neuron = await startNeuron(config, {
    log: silentLog,
    ...(device === null ? {} : { devices: [{ indices: [0], kind: 'cpu', device, budgetMb: 1000 }] }),
    ...more,
  });
  await neuron.activated;
  assert.deepEqual(neuron.activation.state.failed, []);
  return neuron;
}

/** A chat request on a connection of its own, so that leaving is closing it. */
export function openChat(
  neuron: Neuron,
  body: unknown,
): { readonly client: ClientRequest; readonly response: Promise<IncomingMessage> } {
  const client = httpRequest(`${neuron.url}/v1/chat/completions`, { method: 'POST', agent: false });
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    client.on('response', resolve);
    client.on('error', reject);
  });
  response.catch(() => {});
  client.end(JSON.stringify(body));
  return { client, response };
}

/** Waits for a state, not for a time. */
export async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
}
