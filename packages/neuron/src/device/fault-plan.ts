/**
 * NEURON_FAULT as text: faults for tests and drills, `;` between them, each `kind:key=value,key=value`.
 *
 *     abort:step=3,model=cortex-tiny,lives=1; slow_load:ms=5000
 *
 * The daemon reads it once, at its start, and refuses what it does not understand: a drill that silently does
 * nothing would pass for a system that survived it.
 */
import { ConfigError } from 'cortex-core/config/config-error';
import { findNearest } from 'cortex-core/config/nearest-key';
import type { Fault } from './jobs.ts';

type Kind = Fault['kind'];
type NumberKey = 'step' | 'ms' | 'lives';

/** The number that each kind needs. */
const required: Readonly<Record<Kind, NumberKey | null>> = {
  abort: 'step',
  hang: 'step',
  nan: 'step',
  slow_load: 'ms',
  load_oom: null,
  load_abort: null,
};
const kinds = Object.keys(required) as Kind[];
const numberMax = 2 ** 31 - 1;

/** Errors: ConfigError. */
export function parseFaults(text: string | undefined): readonly Fault[] {
  if (text === undefined || text.trim() === '') return [];
  return text.split(';').map((part) => parseFault(part.trim()));
}

function parseFault(text: string): Fault {
  const [name = '', ...rest] = text.split(':');
  const kind = kinds.find((known) => known === name.trim());
  if (kind === undefined) {
    throw refuse(`"${text}" starts with no fault; use ${kinds.join(', ')}`, findNearest(name.trim(), kinds));
  }
  const values = parseValues(kind, rest.join(':'));
  const needed = required[kind];
  if (needed !== null && !values.has(needed)) {
    throw refuse(`${kind} needs ${needed}: ${kind}:${needed}=1`, null);
  }
  const number = (key: NumberKey): number | null => {
    const value = values.get(key);
    return value === undefined ? null : toNumber(kind, key, value);
  };
  return {
    kind,
    modelId: values.get('model') ?? null,
    lives: number('lives'),
    step: number('step') ?? 0,
    ms: number('ms') ?? 0,
  };
}

function parseValues(kind: Kind, text: string): ReadonlyMap<string, string> {
  const needed = required[kind];
  const known = [...(needed === null ? [] : [needed]), 'model', 'lives'];
  const values = new Map<string, string>();
  for (const pair of text.split(',').filter((each) => each.trim() !== '')) {
    const at = pair.indexOf('=');
    const key = (at < 0 ? pair : pair.slice(0, at)).trim();
    const value = at < 0 ? '' : pair.slice(at + 1).trim();
    if (!known.includes(key)) {
      throw refuse(`${kind} has no "${key}"; it takes ${known.join(', ')}`, findNearest(key, known));
    }
    if (value === '' || values.has(key)) throw refuse(`${kind} needs one value for ${key}`, null);
    values.set(key, value);
  }
  return values;
}

function toNumber(kind: Kind, key: NumberKey, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= numberMax) return value;
  throw refuse(`${key} of ${kind} must be a whole number from 1, not "${text}"`, null);
}

function refuse(message: string, suggestion: string | null): ConfigError {
  const source = 'environment NEURON_FAULT';
  return new ConfigError([{ source, line: null, column: null, key: '', message, suggestion }]);
}
