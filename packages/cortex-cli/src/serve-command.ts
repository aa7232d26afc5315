/** `cortex serve`: the gateway alone, in the foreground, JSON logs on stderr: what a service manager runs. */
import { systemClock } from 'cortex-core/daemon/clock';
import { createLog } from 'cortex-core/daemon/log';
import { CliError } from './cli-error.ts';
import { ConfigReloader } from './config-reloader.ts';
import { FileWatch, signFiles } from './file-watch.ts';
import { loadGatewayConfig } from './load-files.ts';
import { untilStopped } from './stop-signals.ts';
import type { Terminal } from './terminal.ts';

const STOP_MS_MAX = 20_000;

export async function runServe(terminal: Terminal, options: { readonly config?: string }): Promise<void> {
  const path = options.config ?? (terminal.env.CORTEX_CONFIG || undefined);
  if (path === undefined) {
    throw new CliError('serve needs its configuration: cortex serve --config cortex.toml', 2);
  }
  const load = () => loadGatewayConfig({ path, env: terminal.env });
  let current = load();
  const files = (): readonly string[] => [path, current.modelsPath];
  const since = signFiles(files());
  const log = createLog(current.gateway.log.level);
  const { startGateway } = await import('cortex-gateway/gateway');
  const reloader = new ConfigReloader({
    log,
    apply: async () => {
      const running = await started;
      const next = load();
      const report = await running.reload(next.gateway, next.models);
      log.setLevel(next.gateway.log.level);
      current = next;
      return report;
    },
  });
  const stopped = untilStopped(terminal, log, () => reloader.trigger('signal'));
  const started = startGateway(current.gateway, current.models, {
    log,
    onReload: () => reloader.reload('request'),
  });
  const gateway = await started;
  const watch = new FileWatch({
    clock: systemClock,
    paths: files,
    since,
    isOn: () => current.gateway.gateway.watch_config,
    onChange: () => reloader.trigger('file'),
  });
  log.info('cortex listens', { url: gateway.url, metrics_port: gateway.metricsPort });
  await stopped;
  watch.close();
  const deadline = new AbortController();
  await Promise.race([gateway.close(), systemClock.sleep(STOP_MS_MAX, deadline.signal).catch(() => {})]);
  deadline.abort();
  log.info('stopped');
}
