/** `cortex drain` and `undrain`: takes a node out of service, waits until it is empty, or puts it back. */
import { systemClock } from 'cortex-core/daemon/clock';
import { CliError } from './cli-error.ts';
import { readFleet, readService } from './fleet-answer.ts';
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import type { Terminal } from './terminal.ts';

const WAIT_POLL_MS = 500;

export interface DrainOptions extends GatewayAddress {
  readonly cordon?: boolean;
  readonly deadline?: number;
  readonly undo?: boolean;
  readonly wait?: boolean;
  readonly json?: boolean;
}

export async function drainNode(
  terminal: Terminal,
  node: string,
  options: DrainOptions,
  signal: AbortSignal,
): Promise<void> {
  checkOptions(options);
  const client = new GatewayClient(options);
  const answer = await send(client, node, options, signal);
  if (options.wait === true) await waitUntilEmpty(client, node, signal);
  const said =
    options.wait === true ? { ...(answer as object), state: 'drained', in_flight: 0, loads: 0 } : answer;
  const text = options.json === true ? JSON.stringify(said) : describe(node, said);
  terminal.stdout.write(`${text}\n`);
}

function checkOptions({ undo, cordon, wait, deadline }: DrainOptions): void {
  if (undo === true && (cordon === true || wait === true || deadline !== undefined)) {
    throw new CliError('--undo puts the node back; it goes with no other option', 2);
  }
  if (cordon === true && (wait === true || deadline !== undefined)) {
    throw new CliError('--cordon keeps requests running; leave out --wait and --deadline', 2);
  }
}

function send(
  client: GatewayClient,
  node: string,
  { undo, cordon, deadline }: DrainOptions,
  signal: AbortSignal,
): Promise<unknown> {
  if (undo === true) return client.post('/admin/undrain', { node }, signal);
  const body = { node, cordon: cordon === true, ...(deadline === undefined ? {} : { deadline }) };
  return client.post('/admin/drain', body, signal);
}

async function waitUntilEmpty(client: GatewayClient, name: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const node = readFleet(await client.get('/admin/fleet', signal)).find((each) => each.name === name);
    if (node === undefined) throw new CliError(`${name} is no longer in the fleet`);
    if (node.service === 'drained') return;
    if (node.service !== 'draining')
      throw new CliError(`${name} is no longer being drained: ${node.service}`);
    await systemClock.sleep(WAIT_POLL_MS, signal);
  }
}

function describe(node: string, answer: unknown): string {
  const { service, running } = readService(answer);
  switch (service) {
    case 'draining':
      return `${node} takes no new requests; ${running} still running`;
    case 'drained':
      return `${node} is drained: nothing runs there`;
    case 'cordoned':
      return `${node} loads nothing new; what is loaded goes on serving`;
    default:
      return `${node} is back in service`;
  }
}
