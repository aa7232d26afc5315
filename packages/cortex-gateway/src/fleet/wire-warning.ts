import { type Discovery, wireVersion } from 'cortex-core/wire/neuron';

/** Why a neuron may not be understood; null = all is well, or it never answered. */
export function wireWarning(discovery: Discovery | null): string | null {
  if (discovery === null || discovery.wire_version === wireVersion) return null;
  const { wire_version: told, package_version: version } = discovery;
  const says = told === null ? 'tells no wire version' : `speaks wire version ${told}`;
  return `the neuron ${says} (its version is ${version ?? 'unknown'}), this gateway speaks ${wireVersion}`;
}
