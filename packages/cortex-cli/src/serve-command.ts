/** `cortex serve`: the gateway alone, in the foreground, JSON logs on stderr: what a service manager runs. */
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';
import { loadGatewayConfig } from './load-files.ts';
import { listenForStop } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';

const STOP_MS_MAX = 20_000;

export async function runServe(terminal: Terminal, options: { readonly config?: string }): Promise<void> {
  const path = options.config ?? (terminal.env.CORTEX_CONFIG || undefined);
  if (path === undefined) {
    throw new CliError('serve needs its configuration: cortex serve --config cortex.toml', 2);
  }
  const { gateway: config, models } = loadGatewayConfig({ path, env: terminal.env });
  const log = createLog(config.log.level);
  const { startGateway } = await import('cortex-gateway/gateway');
  const gateway = await startGateway(config, models, { log });
  log.info('cortex listens', { url: gateway.url, metrics_port: gateway.metricsPort });
  await new Promise<void>((resolve) => {
    listenForStop(process, systemClock, {
      onFirst: (signal) => {
        log.info('stopping', { signal });
        resolve();
      },
      onSecond: () => process.exit(1),
    });
  });
  const deadline = new AbortController();
  await Promise.race([gateway.close(), systemClock.sleep(STOP_MS_MAX, deadline.signal).catch(() => {})]);
  deadline.abort();
  log.info('stopped');
}
