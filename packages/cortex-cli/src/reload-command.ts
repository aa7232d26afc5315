/** `cortex reload`: the gateway reads its files again. */
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import type { Terminal } from './terminal.ts';
import { toPrintable } from './text.ts';

export async function reloadGateway(
  terminal: Terminal,
  options: GatewayAddress & { readonly json?: boolean },
  signal: AbortSignal,
): Promise<void> {
  const answer = await new GatewayClient(options).post('/admin/reload', {}, signal);
  const lines = options.json === true ? [JSON.stringify(answer)] : describeReload(answer);
  for (const line of lines) terminal.stdout.write(`${line}\n`);
}

function describeReload(answer: unknown): readonly string[] {
  const list = (name: string): readonly string[] => {
    const value = (answer as Readonly<Record<string, unknown>> | null)?.[name];
    return Array.isArray(value) ? value.map((each) => toPrintable(String(each))) : [];
  };
  const [changed, restart, notes] = [list('changed'), list('needs_restart'), list('notes')];
  return [
    ...(changed.length === 0 ? ['nothing changed'] : ['reloaded:', ...changed.map((line) => `  ${line}`)]),
    ...(restart.length === 0 ? [] : ['needs a restart:', ...restart.map((line) => `  ${line}`)]),
    ...notes,
  ];
}
