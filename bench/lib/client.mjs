/**
 * A client that costs next to nothing: it notes when bytes came and how many events with text were in them,
 * and reads JSON only after the end.
 */
import { Agent, request } from 'node:http';

/** A connection a request: llama-server closes idle ones after 5 s, and a reused one may just be closing. */
const agent = new Agent({ keepAlive: false, maxSockets: 64 });
const textField = Buffer.from('"content":"');
const quote = '"'.charCodeAt(0);

/**
 * One streamed chat, greedy, with exactly `maxTokens` tokens. Times are performance.now(). `onText` is called
 * with the number of the text event as it comes. `tells`: a neuron tells the tokens behind each text, and
 * `tokensOf` says how many; a token that shows nothing yet comes with the next.
 */
export function streamChat(url, { model = 'bench', messages, maxTokens, tells = false, onText = () => {} }) {
  const body = JSON.stringify({
    model,
    messages,
    max_tokens: maxTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
  const sentAt = performance.now();
  return new Promise((resolve, reject) => {
    const times = [];
    const bytes = [];
    const ended = (response) => {
      const raw = Buffer.concat(bytes).toString('utf8');
      if (response.statusCode !== 200)
        return reject(new Error(`${response.statusCode}: ${raw.slice(0, 300)}`));
      try {
        resolve(toAnswer(raw, times, sentAt));
      } catch (error) {
        reject(error);
      }
    };
    const post = request(`${url}/v1/chat/completions`, {
      agent,
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        ...(tells ? { 'x-cortex-tokens': 'tell' } : {}),
      },
    });
    post.on('response', (response) => {
      response.on('data', (chunk) => {
        bytes.push(chunk);
        const now = performance.now();
        for (let count = countTexts(chunk); count > 0; count--) onText(times.push(now));
      });
      response.on('end', () => ended(response));
      response.on('error', reject);
    });
    post.on('error', reject);
    post.end(body);
  });
}

export async function postJson(url, path, body) {
  const response = await fetch(url + path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: jsonHeaders,
  });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${(await response.text()).slice(0, 300)}`);
  return response.json();
}

const jsonHeaders = { 'content-type': 'application/json' };

/** Events whose content is not empty. */
function countTexts(chunk) {
  let count = 0;
  for (let at = chunk.indexOf(textField); at !== -1; at = chunk.indexOf(textField, at + textField.length)) {
    if (chunk[at + textField.length] !== quote) count++;
  }
  return count;
}

/** Per frame with a text: `: tok BYTES ID...` stands before its events. */
function countTokens(raw) {
  const counts = [];
  let pending = 0;
  for (const line of raw.split('\n')) {
    if (line.startsWith(': tok ')) pending += line.split(' ').length - 3;
    else if (/"content":"[^"]/.test(line)) {
      counts.push(Math.max(1, pending));
      pending = 0;
    }
  }
  return counts;
}

function toAnswer(raw, times, sentAt) {
  let text = '';
  let usage = null;
  for (const line of raw.split('\n')) {
    if (!line.startsWith('data: {')) continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(JSON.stringify(event.error));
    text += event.choices?.[0]?.delta?.content ?? '';
    usage = event.usage ?? usage;
  }
  if (usage === null || times.length === 0) throw new Error('the stream ended without usage or without text');
  return {
    text,
    times,
    tokensOf: countTokens(raw),
    promptTokens: usage.prompt_tokens,
    tokens: usage.completion_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    firstMs: times[0] - sentAt,
    wallMs: performance.now() - sentAt,
  };
}

/**
 * Tokens per second over all streams while all of them ran: from the first text of the last to begin to the
 * last text of the first to end. A token can have no text of its own (half a character), so texts are scaled
 * to tokens.
 */
export function steadyRate(answers) {
  const from = Math.max(...answers.map(({ times }) => times[0]));
  const to = Math.min(...answers.map(({ times }) => times.at(-1)));
  if (to <= from) throw new Error('the streams did not overlap');
  let tokens = 0;
  for (const { times, tokens: all } of answers) {
    const within = times.filter((time) => time > from && time <= to).length;
    tokens += within * ((all - 1) / (times.length - 1));
  }
  return (tokens * 1000) / (to - from);
}
