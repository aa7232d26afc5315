/** `cortex explain`: where a request for a model would go now, and why. Asks the gateway; changes nothing. */
import { renderExplanation } from './explain-text.ts';
import { readExplanation } from './fleet-answer.ts';
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import type { Terminal } from './terminal.ts';

export interface ExplainOptions extends GatewayAddress {
  readonly promptTokens?: number;
  readonly json?: boolean;
}

export async function explainModel(
  terminal: Terminal,
  model: string,
  options: ExplainOptions,
  signal: AbortSignal,
): Promise<void> {
  const query = new URLSearchParams({ model });
  if (options.promptTokens !== undefined) query.set('prompt_tokens', String(options.promptTokens));
  const answer = await new GatewayClient(options).get(`/admin/explain?${query}`, signal);
  const text =
    options.json === true
      ? `${JSON.stringify(answer)}\n`
      : renderExplanation(readExplanation(answer), terminal.style);
  terminal.stdout.write(text);
}
