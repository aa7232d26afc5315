/** A real neuron, alone in this process. */
import { loadConfig } from '../../packages/cortex-core/dist/config/load.js';
import { createLog } from '../../packages/cortex-core/dist/daemon/log.js';
import { startNeuron } from '../../packages/neuron/dist/neuron.js';

let neuron = null;

process.on('message', async (message) => {
  try {
    process.send({ value: await start(message) });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on('SIGTERM', async () => {
  await neuron?.close();
  process.exit(0);
});
process.on('disconnect', () => process.exit(0));

async function start({ file, transport, threads, context, slots }) {
  const config = loadConfig('neuron', {
    defaults: {
      listen: '127.0.0.1',
      port: 0,
      device_worker: transport,
      engine: { context, slots, ...(threads === null ? {} : { threads }), libllama: 'cpu' },
      admission: { max_queue_depth: 64, max_wait_secs: 600 },
      models: { dirs: [] },
      default_models: [{ model_id: file }],
    },
  });
  neuron = await startNeuron(config, { log: createLog('error') });
  await neuron.activated;
  const models = await (await fetch(`${neuron.url}/models`)).json();
  const loaded = models.find(({ status }) => status === 'loaded');
  if (loaded === undefined) throw new Error(`not loaded: ${JSON.stringify(models).slice(0, 500)}`);
  return { url: neuron.url, model: loaded.id };
}
