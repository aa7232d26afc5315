/** Commands that ask a running gateway: status, models, load, unload. */
import { systemClock } from 'cortex-core/daemon/clock';
import { readFleet, readHealth, readModels, readProviders } from './fleet-answer.ts';
import { renderModels, renderStatus } from './fleet-text.ts';
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import { ProgressDisplay } from './progress.ts';
import type { Terminal } from './terminal.ts';
import { formatDuration } from './text.ts';

const WATCH_MS = 1000;
const LOAD_POLL_MS = 500;
const CLEAR_SCREEN = '\x1b[H\x1b[2J\x1b[3J';

export interface StatusOptions extends GatewayAddress {
  readonly json?: boolean;
  readonly watch?: boolean;
}

export async function showStatus(
  terminal: Terminal,
  options: StatusOptions,
  signal: AbortSignal,
): Promise<void> {
  const client = new GatewayClient(options);
  for (;;) {
    const text = await readStatus(terminal, client, options.json === true, signal);
    const clear = options.watch === true && terminal.stdout.isTTY === true && options.json !== true;
    terminal.stdout.write(`${clear ? CLEAR_SCREEN : ''}${text}`);
    if (options.watch !== true) return;
    await systemClock.sleep(WATCH_MS, signal);
  }
}

async function readStatus(
  terminal: Terminal,
  client: GatewayClient,
  json: boolean,
  signal: AbortSignal,
): Promise<string> {
  const [health, fleet] = await Promise.all([
    client.get('/health', signal),
    client.get('/admin/fleet', signal),
  ]);
  if (json) return `${JSON.stringify({ endpoint: client.endpoint, health, fleet })}\n`;
  const facts = {
    endpoint: client.endpoint,
    health: readHealth(health),
    nodes: readFleet(fleet),
    providers: readProviders(fleet),
    columns: terminal.stdout.columns ?? 100,
  };
  return renderStatus(facts, terminal.style);
}

export async function showModels(
  terminal: Terminal,
  options: GatewayAddress & { readonly json?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const answer = await new GatewayClient(options).get('/v1/models', signal);
  const text =
    options.json === true ? `${JSON.stringify(answer)}\n` : renderModels(readModels(answer), terminal.style);
  terminal.stdout.write(text);
}

export interface LoadOptions extends GatewayAddress {
  readonly node?: string;
  readonly json?: boolean;
}

export async function loadModel(
  terminal: Terminal,
  model: string,
  options: LoadOptions,
  signal: AbortSignal,
): Promise<void> {
  const client = new GatewayClient(options);
  const startedMs = systemClock.monotonicMs();
  const ended = new AbortController();
  const watching = watchLoad(terminal, client, model, AbortSignal.any([signal, ended.signal]));
  try {
    const answer = await client.post('/admin/load', targetOf(model, options), signal);
    ended.abort();
    await watching;
    const took = formatDuration(systemClock.monotonicMs() - startedMs);
    const text = options.json === true ? JSON.stringify(answer) : `${model} is loaded (${took})`;
    terminal.stdout.write(`${text}\n`);
  } finally {
    ended.abort();
    await watching;
  }
}

export async function unloadModel(
  terminal: Terminal,
  model: string,
  options: LoadOptions,
  signal: AbortSignal,
): Promise<void> {
  const answer = await new GatewayClient(options).post('/admin/unload', targetOf(model, options), signal);
  terminal.stdout.write(`${options.json === true ? JSON.stringify(answer) : `${model} is unloaded`}\n`);
}

export async function cancelLoad(
  terminal: Terminal,
  model: string,
  options: LoadOptions,
  signal: AbortSignal,
): Promise<void> {
  const answer = await new GatewayClient(options).post('/admin/cancel', targetOf(model, options), signal);
  const text = options.json === true ? JSON.stringify(answer) : `the load of ${model} is cancelled`;
  terminal.stdout.write(`${text}\n`);
}

function targetOf(model: string, { node }: LoadOptions) {
  return { model, ...(node === undefined ? {} : { node }) };
}

/** Shows the load on stderr until the signal; what it cannot learn, it does not show. */
async function watchLoad(
  terminal: Terminal,
  client: GatewayClient,
  model: string,
  signal: AbortSignal,
): Promise<void> {
  const display = new ProgressDisplay(terminal.stderr);
  try {
    for (;;) {
      await systemClock.sleep(LOAD_POLL_MS, signal);
      const nodes = readFleet(await client.get('/admin/fleet', signal));
      const load = nodes.flatMap((node) => node.loading).find((each) => each.model_id.endsWith(model));
      if (load !== undefined) display.show(load);
    }
  } catch {
    // Ended, or the gateway does not tell: the load's own answer says what happened.
  } finally {
    display.clear();
  }
}
