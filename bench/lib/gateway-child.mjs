/** A gateway, alone in this process as `cortex` runs it, and what it takes of memory. */
import { limitYoungGeneration } from '../../packages/cortex-cli/bin/young-generation.js';

limitYoungGeneration();
const dist = (path) => import(`../../packages/${path}.js`);
const { cortexConfigSchema } = await dist('cortex-core/dist/config/cortex-config');
const { modelsConfigSchema } = await dist('cortex-core/dist/config/models-config');
const { silentLog } = await dist('cortex-core/dist/daemon/log');
const { startGateway } = await dist('cortex-gateway/dist/gateway');

const commands = { start, memory };
let gateway = null;

process.on('message', async (message) => {
  try {
    process.send({ value: await commands[message.command](message) });
  } catch (error) {
    process.send({ error: error.stack });
  }
});
process.on('SIGTERM', async () => {
  await gateway?.close();
  process.exit(0);
});
process.on('disconnect', () => process.exit(0));

async function start({ neuron }) {
  const config = cortexConfigSchema.parse({
    gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0' },
    neurons: [{ name: 'n', endpoint: neuron }],
  });
  gateway = await startGateway(config, modelsConfigSchema.parse({}), { log: silentLog });
  return { url: gateway.url };
}

/** MiB. Garbage is collected first where the process may. */
function memory() {
  globalThis.gc?.();
  const { rss, heapUsed } = process.memoryUsage();
  return { rssMb: rss / 2 ** 20, heapMb: heapUsed / 2 ** 20 };
}
