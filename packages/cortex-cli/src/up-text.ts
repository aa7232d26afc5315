/** What `cortex up` says. Pure: facts in, lines out. */
import type { Discovery, NeuronHealth } from 'cortex-core/wire/neuron';
import type { Style } from './style.ts';
import { formatMb, plural, quoteForShell, toPrintable } from './text.ts';

const LABEL_WIDTH = 10;

/** `  label     text` */
export function renderFact(label: string, text: string, style: Style): string {
  return `  ${style.dim(label.padEnd(LABEL_WIDTH))}${text}`;
}

/** Of the machine that several neurons share. */
export function renderHost(found: Discovery, style: Style): string {
  const devices = found.devices.map((device) => toPrintable(device.name)).join(', ');
  return renderFact('machine', `${systemOf(found)}, ${devices}`, style);
}

export function renderMachine(found: Discovery, health: NeuronHealth, style: Style): readonly string[] {
  const devices = found.devices.map((device) => {
    const free = health.devices.find((candidate) => candidate.index === device.index)?.vram_free_mb;
    const memory = formatMb(device.vram_total_mb) + (free == null ? '' : `, ${formatMb(free)} free`);
    const kind = device.name.toLowerCase().startsWith(device.kind.toLowerCase()) ? '' : `${device.kind}: `;
    return renderFact(`device ${device.index}`, `${kind}${toPrintable(device.name)}, ${memory}`, style);
  });
  const trouble = found.cuda_unavailable_reason;
  return [
    renderFact('machine', `${systemOf(found)}, ${plural(found.devices.length, 'device')}`, style),
    ...devices,
    ...(trouble === undefined ? [] : [renderFact('no CUDA', style.yellow(toPrintable(trouble)), style)]),
  ];
}

function systemOf({ hostname, os, kernel }: Discovery): string {
  return toPrintable(`${hostname}, ${os} ${kernel}`.trim());
}

export interface ReadyFacts {
  readonly url: string;
  readonly metricsUrl: string | null;
  /** Of the one there is; null = several, which were listed before. */
  readonly neuronUrl: string | null;
  readonly model: string | null;
  readonly needsKey: boolean;
  readonly logDir: string;
}

export function renderReady(facts: ReadyFacts, style: Style): readonly string[] {
  const question =
    facts.model === null
      ? [
          '  no model is loaded yet: name one with --model, or ask for one by its id.',
          `  ${style.bold(`curl ${quoteForShell(`${facts.url}/v1/models`)}`)}`,
        ]
      : [`  ${style.bold(renderCurl(facts.url, facts.model, facts.needsKey))}`];
  return [
    renderFact('ready', style.green(facts.url), style),
    ...(facts.metricsUrl === null ? [] : [renderFact('metrics', facts.metricsUrl, style)]),
    ...(facts.neuronUrl === null ? [] : [renderFact('neuron', facts.neuronUrl, style)]),
    renderFact('logs', facts.logDir, style),
    '',
    ...question,
    '',
    style.dim('Ctrl-C stops it.'),
  ];
}

/** A line that a shell takes as it stands. */
export function renderCurl(url: string, model: string, needsKey: boolean): string {
  const body = {
    model,
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
    stream: true,
  };
  const key = needsKey ? ' -H "authorization: Bearer $CORTEX_API_KEY"' : '';
  const address = quoteForShell(`${url}/v1/chat/completions`);
  return `curl -N ${address}${key} -d ${quoteForShell(JSON.stringify(body))}`;
}

/** The address to show for one that is listened on: a wildcard is no place to connect to. */
export function toConnectUrl(url: string): string {
  return url.replace('://0.0.0.0', '://127.0.0.1').replace('://[::]', '://[::1]');
}
