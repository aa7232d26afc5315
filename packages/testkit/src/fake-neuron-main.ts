/**
 * The fake neuron as a program: `node fake-neuron-main.js [--port N] [--device MIB]... [--model
 * ID[:MIB][:loaded]]...` Prints its address on one line and runs until it is stopped.
 */
import { parseArgs } from 'node:util';
import { startFakeNeuron } from './fake-neuron.ts';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    device: { type: 'string', multiple: true, default: [] },
    model: { type: 'string', multiple: true, default: ['fake-model:1000:loaded'] },
  },
});
const neuron = await startFakeNeuron({
  port: Number(values.port),
  ...(values.device.length === 0 ? {} : { devices: values.device.map(Number) }),
  models: values.model.map((text) => {
    const [id = '', mb, status] = text.split(':');
    return { id, vramMb: Number(mb ?? 1000), status: status === 'loaded' ? 'loaded' : 'available' };
  }),
});
process.stdout.write(`${neuron.url}\n`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void neuron.close());
