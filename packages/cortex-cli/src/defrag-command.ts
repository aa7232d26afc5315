/** `cortex defrag`: what would be moved and renewed on the nodes, or the doing of it. */
import { type DefragAnswer, type DefragNode, defragAnswerSchema } from 'cortex-core/wire/defrag';
import { CliError } from './cli-error.ts';
import { type GatewayAddress, GatewayClient } from './gateway-client.ts';
import type { Style } from './style.ts';
import type { Terminal } from './terminal.ts';
import { formatMb, plural, toPrintable } from './text.ts';

export interface DefragOptions extends GatewayAddress {
  readonly model?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export async function runDefrag(
  terminal: Terminal,
  node: string | undefined,
  options: DefragOptions,
  signal: AbortSignal,
): Promise<void> {
  const body = {
    ...(node === undefined ? {} : { node }),
    ...(options.model === undefined ? {} : { model: options.model }),
    dry_run: options.dryRun === true,
  };
  const answer = await new GatewayClient(options).post('/admin/defrag', body, signal);
  const parsed = defragAnswerSchema.safeParse(answer);
  if (!parsed.success) throw new CliError('the gateway answered with something else; is it of this version?');
  const text =
    options.json === true ? `${JSON.stringify(answer)}\n` : renderDefrag(parsed.data, terminal.style);
  terminal.stdout.write(text);
  const failed = parsed.data.nodes.filter(({ done }) => (done?.error ?? null) !== null);
  if (failed.length > 0) throw new CliError(failed.map((each) => each.done?.error).join('; '));
}

/** Pure. */
export function renderDefrag({ dry_run: isDry, nodes }: DefragAnswer, style: Style): string {
  if (nodes.length === 0) return 'no node answers\n';
  const lines = nodes.flatMap((node) => [
    `${style.bold(toPrintable(node.node))}  ${headOf(node)}`,
    ...stepsOf(node, style),
  ]);
  const hasSteps = nodes.some(({ moves, recycle }) => moves.length + recycle.length > 0);
  if (isDry && hasSteps) lines.push(style.dim('nothing was changed; leave out --dry-run to do it'));
  return `${lines.join('\n')}\n`;
}

function headOf({ moves, recycle, moved_mb: mb, why, done }: DefragNode): string {
  if (moves.length + recycle.length === 0) return `nothing to do: ${toPrintable(why)}`;
  if (done === undefined) return toPrintable(why);
  const parts = [
    ...(done.moves > 0 ? [`${plural(done.moves, 'model')} moved (${formatMb(mb)})`] : []),
    ...(done.recycled > 0 ? [`${plural(done.recycled, 'device')} recycled`] : []),
    ...(done.reloading.length > 0
      ? [`being loaded again: ${done.reloading.map(toPrintable).join(', ')}`]
      : []),
  ];
  return parts.length === 0 ? 'nothing was done' : parts.join(', ');
}

function stepsOf({ moves, recycle }: DefragNode, style: Style): readonly string[] {
  return [
    ...moves.map(({ model, from, to, vram_mb: mb }) => {
      return `  ${style.dim('move   ')}  ${toPrintable(model)}, device ${from} to ${to}, ${formatMb(mb)}`;
    }),
    ...recycle.map(({ device, models, why }) => {
      const back = models.length === 0 ? '' : `; with ${models.map(toPrintable).join(', ')}`;
      return `  ${style.dim('recycle')}  device ${device}: ${toPrintable(why)}${back}`;
    }),
  ];
}
