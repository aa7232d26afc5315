/** `[[providers]]` as the fleet wants them, and what joins the fleet to the wires of `dialects/providers`. */
import type { ProviderConfig } from 'cortex-core/config/provider-config';
import type { Clock } from 'cortex-core/daemon/clock';
import { toAnthropicCall } from './dialects/providers/anthropic-wire.ts';
import { toOpenAiCall } from './dialects/providers/openai-wire.ts';
import { toProviderError } from './dialects/providers/provider-error.ts';
import type { ProviderDeps, ProviderSpec } from './fleet/provider.ts';

export function toProviderSpec(config: ProviderConfig): ProviderSpec {
  return {
    name: config.name,
    kind: config.kind,
    url: config.url,
    keyEnv: config.key_env ?? null,
    models: config.models.map((model) => ({
      id: model.id,
      upstream: model.upstream ?? model.id,
      limit: model.limit ?? null,
      cost: model.cost ?? null,
      capabilities: model.capabilities,
    })),
    concurrentMax: config.max_concurrent,
    connectTimeoutMs: config.connect_timeout_secs * 1000,
    idleMs: config.idle_timeout_secs * 1000,
    afterWaitMs: config.after_wait_secs === undefined ? null : config.after_wait_secs * 1000,
    failuresMax: config.rest_after_failures,
    dropFields: config.drop_fields,
    maxTokensField: config.max_tokens_field,
  };
}

/** `env`: the variables with the keys. */
export function toProviderDeps(
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
): ProviderDeps {
  return {
    env: (name) => env[name],
    toCall: ({ kind, dropFields, maxTokensField }, model, { path, body }) => {
      const toCall = kind === 'openai' ? toOpenAiCall : toAnthropicCall;
      return toCall(path, body, {
        model: model.upstream,
        outputMax: model.limit?.output ?? null,
        dropFields,
        maxTokensField,
        createdSecs: Math.floor(clock.now() / 1000),
      });
    },
    toError: ({ name, keyEnv }, { upstream }, answer) =>
      toProviderError({ ...answer, name, keyEnv, model: upstream }),
  };
}
