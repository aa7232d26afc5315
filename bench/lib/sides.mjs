/** The programs that are compared, each in a child process, and what they are asked. */
import { forkAsking, spawnServer } from './child.mjs';
import { steadyRate, streamChat } from './client.mjs';

export async function openNeuron({ file, threads, context, slots, transport = 'thread' }) {
  const profile = process.env.BENCH_CPU_PROF;
  const execArgv = profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}`] : [];
  const start = { file, threads, context, slots, transport };
  const child = await forkAsking('./neuron-child.mjs', start, execArgv);
  return { name: `neuron (${transport})`, ...child.value, pid: child.pid, close: child.close };
}

export async function openBare({ file, threads, context, slots }) {
  const child = await forkAsking('./bare-child.mjs', { file, threads, context, slots });
  return {
    name: 'bare loop',
    ...child.value,
    decode: (message) => child.ask({ command: 'decode', ...message }),
    prefill: (message) => child.ask({ command: 'prefill', ...message }),
    close: child.close,
  };
}

/** `slots` null = its default: four slots over one shared KV cache. */
export async function openLlamaServer(program, { file, threads, context, slots = null }) {
  const size = slots === null ? context : context * slots;
  const parallel = slots === null ? [] : ['-np', `${slots}`];
  const common = ['-m', file, '-t', `${threads}`, '-c', `${size}`, '--host', '127.0.0.1', ...parallel];
  const server = await spawnServer(program, (port) => [...common, '--port', `${port}`]);
  return { name: 'llama-server', model: 'bench', ...server };
}

/** Opens all or none, runs, closes all. */
export async function withSides(openers, run) {
  const open = [];
  try {
    for (const opener of openers) open.push(await opener());
    return await run(...open);
  } finally {
    await Promise.allSettled(open.map((side) => side.close()));
  }
}

/** Rounds in which every side runs once, in an order that turns; the result has one list a side. */
export async function interleave(rounds, measures) {
  const results = measures.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < measures.length; turn++) {
      const at = (turn + round) % measures.length;
      results[at][round] = await measures[at](round);
    }
  }
  return results;
}

export const question = (round, stream) => [
  { role: 'user', content: `Tell me a long story about fox number ${round * 16 + stream + 1}.` },
];

/** What the question becomes, near enough: the bare loop has no template. */
export const barePrompt =
  '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' +
  '<|im_start|>user\nTell me a long story about fox number 7.<|im_end|>\n<|im_start|>assistant\n';

/** Tokens per second of `streams` streams at once through HTTP. */
export async function rateOf({ url, model }, { streams, tokens, round }) {
  const all = Array.from({ length: streams }, (_, stream) =>
    streamChat(url, { model, messages: question(round, stream), maxTokens: tokens }),
  );
  return steadyRate(await Promise.all(all));
}

export const ratios = (left, right) => left.map((value, round) => value / right[round]);
