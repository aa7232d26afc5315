/** Configuration files with the paths in them made absolute: relative ones start at the file's directory. */
import type { CortexConfig } from 'cortex-core/config/cortex-config';
import { type ConfigInputOf, type Environment, loadConfig, resolveConfigPath } from 'cortex-core/config/load';
import type { ModelsConfig } from 'cortex-core/config/models-config';
import type { NeuronConfig } from 'cortex-core/config/neuron-config';

interface FileOptions<K extends 'cortex' | 'neuron'> {
  readonly path: string | undefined;
  readonly env: Environment;
  readonly defaults?: ConfigInputOf<K>;
}

export function loadNeuronConfig(options: FileOptions<'neuron'>): NeuronConfig {
  const config = loadConfig('neuron', options);
  const { dirs, hf_cache: cache } = config.models;
  const { state_dir: state } = config;
  return {
    ...config,
    ...(state === undefined ? {} : { state_dir: resolveConfigPath(state, options.path) }),
    models: {
      ...config.models,
      dirs: dirs.map((dir) => resolveConfigPath(dir, options.path)),
      ...(cache === undefined ? {} : { hf_cache: resolveConfigPath(cache, options.path) }),
    },
  };
}

/** cortex.toml and the catalogue that it names. */
export function loadGatewayConfig(options: FileOptions<'cortex'>): {
  readonly gateway: CortexConfig;
  readonly models: ModelsConfig;
  /** Where the catalogue is, or would be. */
  readonly modelsPath: string;
} {
  const config = loadConfig('cortex', options);
  const path = resolveConfigPath(config.models_config, options.path);
  const { state_dir: state } = config;
  const gateway = {
    ...config,
    ...(state === undefined ? {} : { state_dir: resolveConfigPath(state, options.path) }),
  };
  return { gateway, models: loadConfig('models', { path, missing: 'empty' }), modelsPath: path };
}
