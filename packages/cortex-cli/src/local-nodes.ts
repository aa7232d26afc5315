/**
 * The neurons of `cortex up`: one, or with --nodes several on this one machine, each with a part of its
 * memory, a port, a name and a state directory of its own. Pure.
 */
import { join } from 'node:path';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';
import { CliError } from './cli-error.ts';

export interface LocalNode {
  /** In listings, logs and `--node`; null = that of the machine. */
  readonly name: string | null;
  readonly config: NeuronConfig;
  readonly logName: string;
}

export interface LocalNodesWish {
  readonly nodes?: number | undefined;
  /** MiB of each. */
  readonly budgets?: readonly number[] | undefined;
  /** MiB of all together. */
  readonly memoryMb?: number | undefined;
}

export interface MachineSize {
  readonly memoryMb: number;
  readonly cpus: number;
}

const nodesMax = 16;
const portMax = 65_535;
/** Of the machine's memory, where no size is given: as a neuron alone would take. */
const memoryShare = 0.75;

/**
 * `required`: models that are loaded at start; with several nodes each on one of them, the largest first.
 */
export function planLocalNodes(
  wish: LocalNodesWish,
  neuron: NeuronConfig,
  required: readonly string[],
  machine: MachineSize,
): readonly LocalNode[] {
  const count = wish.nodes ?? wish.budgets?.length ?? 1;
  checkWish(wish, count, neuron.port);
  if (count === 1) {
    const memoryMb = wish.budgets?.[0] ?? wish.memoryMb ?? neuron.cpu.memory_mb;
    return [{ name: null, config: { ...neuron, cpu: { memory_mb: memoryMb } }, logName: 'neuron.log' }];
  }
  const totalMb = wish.memoryMb ?? neuron.cpu.memory_mb ?? Math.floor(machine.memoryMb * memoryShare);
  const budgets = wish.budgets ?? splitUnequally(totalMb, count);
  const bySize = budgets.map((_, index) => index).sort((a, b) => (budgets[b] ?? 0) - (budgets[a] ?? 0));
  const home = new Map(required.map((id, at) => [id, bySize[at % count]]));
  return budgets.map((memoryMb, index): LocalNode => {
    const name = `node${index + 1}`;
    const { state_dir: state } = neuron;
    const config: NeuronConfig = {
      ...neuron,
      port: neuron.port === 0 ? 0 : neuron.port + index,
      ...(state === undefined ? {} : { state_dir: join(state, name) }),
      cpu: { memory_mb: memoryMb },
      engine: {
        ...neuron.engine,
        // Each would take a GPU for its own, and all cores.
        libllama: neuron.engine.libllama === 'auto' ? 'cpu' : neuron.engine.libllama,
        threads: neuron.engine.threads ?? Math.max(1, Math.floor(machine.cpus / count)),
      },
      default_models: neuron.default_models.filter((spec) => (home.get(spec.model_id) ?? index) === index),
    };
    return { name, config, logName: `${name}.log` };
  });
}

function checkWish({ nodes, budgets, memoryMb }: LocalNodesWish, count: number, port: number): void {
  if (nodes !== undefined && budgets !== undefined && budgets.length !== nodes) {
    throw new CliError(
      `--budgets has ${budgets.length} sizes for --nodes ${nodes}; give one for each node`,
      2,
    );
  }
  if (budgets !== undefined && memoryMb !== undefined) {
    throw new CliError('--budgets and --memory-mb both say how much memory there is; give one of them', 2);
  }
  if (count > nodesMax)
    throw new CliError(`${count} nodes are too many for one machine; at most ${nodesMax}`, 2);
  if (port !== 0 && port + count - 1 > portMax) {
    throw new CliError(
      `${count} nodes from port ${port} on go beyond ${portMax}; choose a lower --neuron-port`,
      2,
    );
  }
}

/** Each twice the one before: so that what fits on one does not fit on another. */
function splitUnequally(totalMb: number, count: number): readonly number[] {
  const parts = 2 ** count - 1;
  return Array.from({ length: count }, (_, index) => Math.max(1, Math.floor((totalMb * 2 ** index) / parts)));
}
