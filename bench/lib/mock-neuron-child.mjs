/** A neuron that answers at once; a request for `hold` gets a word a second until its client leaves. */
import { chatStream, startFakeNeuron } from '../../packages/testkit/dist/fake-neuron.js';

process.on('message', async () => {
  const neuron = await startFakeNeuron({ models: ['m', 'hold'].map((id) => ({ id, status: 'loaded' })) });
  const answer = chatStream('m', ['Hello', ' world']);
  const answerWell = neuron.onChat;
  const endOfWord = answer.indexOf('\n\n', answer.indexOf('Hello')) + 2;
  const word = answer.slice(answer.indexOf('\n\n') + 2, endOfWord);
  neuron.onChat = (call) => {
    // what a test reads of past calls would be a leak here
    neuron.chats.length = 0;
    neuron.events.length = 0;
    if (JSON.parse(call.body.toString()).model !== 'hold') return answerWell(call);
    call.response.writeHead(200, { 'content-type': 'text/event-stream' });
    call.response.write(answer.slice(0, endOfWord));
    const timer = setInterval(() => call.response.write(word), 1000);
    call.response.once('close', () => clearInterval(timer));
  };
  process.send({ value: { url: neuron.url } });
});
process.on('SIGTERM', () => process.exit(0));
process.on('disconnect', () => process.exit(0));
