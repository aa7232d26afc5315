/** `cortex status` and `cortex models` as text. Pure. */
import type { FleetNode, FleetProvider, GatewayHealth, ListedModel } from './fleet-answer.ts';
import { renderProgressBar } from './progress.ts';
import type { Style } from './style.ts';
import { renderTable } from './table.ts';
import { formatMb, toPrintable } from './text.ts';

export interface StatusFacts {
  readonly endpoint: string;
  readonly health: GatewayHealth;
  readonly nodes: readonly FleetNode[];
  readonly providers?: readonly FleetProvider[];
  readonly columns: number;
}

export function renderStatus(facts: StatusFacts, style: Style): string {
  const { health, nodes, providers = [] } = facts;
  const color =
    health.status === 'ok' ? style.green : health.status === 'degraded' ? style.red : style.yellow;
  const count = `${health.healthyNodes} of ${health.totalNodes} nodes healthy`;
  const head = `${color(health.status || 'unknown')}  ${facts.endpoint}  ${count}`;
  const hosted = providers.length === 0 ? [] : ['', renderProviders(providers, style)];
  if (nodes.length === 0) {
    return `${[head, '', 'no nodes: list them in [[neurons]] of cortex.toml', ...hosted].join('\n')}\n`;
  }
  const table = renderTable(
    [
      { title: 'NODE' },
      { title: 'STATE' },
      { title: 'DEVICES', align: 'right' },
      { title: 'FREE', align: 'right' },
      { title: 'TOTAL', align: 'right' },
      { title: 'MODELS' },
    ],
    nodes.map((node) => [
      toPrintable(node.name),
      describeNodeState(node, style),
      String(node.devices.length),
      formatMb(sum(node.devices.map((device) => device.freeMb))),
      formatMb(sum(node.devices.map((device) => device.totalMb))),
      describeModels(node),
    ]),
  );
  const loads = nodes.flatMap((node) =>
    node.loading.map((load) => `${toPrintable(node.name)}: ${renderProgressBar(load, facts.columns - 20)}`),
  );
  const notes = [...nodes.flatMap(notesOf), ...noteVersions(nodes)].map((note) =>
    style.yellow(toPrintable(note)),
  );
  const more = [loads, notes].flatMap((lines) => (lines.length === 0 ? [] : ['', ...lines]));
  return `${[head, '', table, ...hosted, ...more].join('\n')}\n`;
}

function renderProviders(providers: readonly FleetProvider[], style: Style): string {
  return renderTable(
    [{ title: 'PROVIDER' }, { title: 'STATE' }, { title: 'RUNNING', align: 'right' }, { title: 'MODELS' }],
    providers.map(({ name, reason, running, models }) => [
      toPrintable(name),
      reason === null ? style.green('in service') : style.yellow(toPrintable(reason)),
      String(running),
      toPrintable(models.join(', ')),
    ]),
  );
}

export function renderModels(models: readonly ListedModel[], style: Style): string {
  if (models.length === 0) {
    return 'no models: put .gguf files where a neuron looks ([models] dirs), or list them in models.toml\n';
  }
  const rows = models.map((model) => [
    toPrintable(model.id),
    describeState(model, style),
    model.context === null ? '-' : String(model.context),
    describePlaces(model),
  ]);
  const columns = [
    { title: 'MODEL' },
    { title: 'STATE' },
    { title: 'CONTEXT', align: 'right' as const },
    { title: 'WHERE' },
  ];
  return `${renderTable(columns, rows)}\n`;
}

/** Unhealthy is said before all else: what is drained and does not answer, does not answer. */
function describeNodeState(node: FleetNode, style: Style): string {
  if (!node.healthy) return style.red('unhealthy');
  if (node.service === '' || node.service === 'in_service') return style.green('healthy');
  return style.yellow(node.service === 'draining' ? `draining, ${node.running} running` : node.service);
}

/** What the table has no room for. */
function notesOf(node: FleetNode): readonly string[] {
  const unservable = node.models.flatMap((model) =>
    model.unservable === null ? [] : `${node.name}: ${model.id} cannot serve: ${model.unservable}`,
  );
  const resting = node.service === 'resting' && node.reason !== null ? [`${node.name} ${node.reason}`] : [];
  return [...resting, ...unservable, ...node.warnings.map((warning) => `${node.name}: ${warning}`)];
}

function noteVersions(nodes: readonly FleetNode[]): readonly string[] {
  const known = nodes.filter(({ version }) => version !== '');
  if (new Set(known.map(({ version }) => version)).size < 2) return [];
  return [`neurons of different versions: ${known.map((node) => `${node.name} ${node.version}`).join(', ')}`];
}

/** Models on a disk are listed by `cortex models`; here stand those that take memory or are in trouble. */
function describeModels(node: FleetNode): string {
  const present = node.models.filter((model) => model.status !== 'available' && model.status !== 'unloaded');
  if (present.length === 0) return '-';
  return present
    .map((model) => {
      const busy = (model.inFlight ?? 0) > 0 ? `, ${model.inFlight} running` : '';
      const trouble = model.unservable === null ? '' : ', cannot serve';
      return `${toPrintable(model.id)} (${toPrintable(model.status)}${busy}${trouble})`;
    })
    .join(', ');
}

function describeState(model: ListedModel, style: Style): string {
  const { locations } = model;
  const isHosted = locations.length > 0 && locations.every(({ status }) => status === 'hosted');
  if (isHosted) return model.loaded ? style.green('hosted') : style.yellow('out of service');
  if (model.loaded) return style.green('loaded');
  const status = model.locations[0]?.status;
  if (status !== undefined && status !== 'loaded') return style.yellow(toPrintable(status));
  return model.feasibleOn.length > 0 ? 'loadable' : style.yellow('fits nowhere');
}

function describePlaces(model: ListedModel): string {
  if (model.locations.length > 0) {
    const places = model.locations.map((place) => `${place.node} (${place.status})`);
    return toPrintable(places.join(', '));
  }
  return model.feasibleOn.length === 0 ? '-' : toPrintable(model.feasibleOn.join(', '));
}

/** null when not one is known. */
function sum(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((total, value) => total + value, 0);
}
