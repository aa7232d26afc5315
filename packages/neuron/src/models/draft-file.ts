/** The smaller model that drafts for another: found like any model, refused where it could not help. */
import { AppError } from 'cortex-core/wire/errors';
import type { ModelSpec } from 'cortex-core/wire/neuron';
import type { FetchProgress } from './hub.ts';
import type { EngineConfig } from './load-plan.ts';
import { assertDraftId } from './model-id.ts';
import { type ModelShape, toModelShape } from './model-shape.ts';
import { type CheckedModel, checkModelFiles } from './preflight.ts';
import type { ModelSources } from './sources.ts';

export interface DraftFile {
  /** The first of its files. */
  readonly file: string;
  /** Changes when its weights do. */
  readonly identity: string;
  readonly checked: CheckedModel;
}

type DraftSpec = Pick<ModelSpec, 'model_id' | 'draft_model' | 'speculation'>;

/** What can be refused without a file. Errors: `invalid_request`. */
export function assertDraftAllowed(spec: DraftSpec, configured: EngineConfig['speculation']): void {
  if (!spec.draft_model) return;
  assertDraftId(spec.draft_model);
  if ((spec.speculation ?? configured) !== 'off') return;
  throw refusal(
    'draft_model has no use while speculation is "off"; set speculation = "auto" or leave it out',
  );
}

/**
 * Null where the load names none. Errors: those of finding and checking a model, and `invalid_request` where
 * the two do not go together; `param` is `draft_model`. What the tokens mean is compared by the engine.
 */
export async function resolveDraft(
  sources: ModelSources,
  spec: DraftSpec,
  main: CheckedModel,
  onFetch: FetchProgress,
  signal: AbortSignal,
): Promise<DraftFile | null> {
  const modelId = spec.draft_model;
  if (!modelId) return null;
  try {
    const { files, digest } = await sources.resolve({ modelId, quant: null, file: null }, onFetch, signal);
    const checked = await checkModelFiles(files);
    const why = mismatch(spec, toModelShape(checked.header), toModelShape(main.header));
    if (why !== null) throw refusal(why);
    const file = files[0] ?? '';
    return { file, identity: `${digest ?? file} ${checked.fileBytes}`, checked };
  } catch (thrown) {
    signal.throwIfAborted();
    throw naming(thrown);
  }
}

/** Why the one cannot draft for the other; null = nothing in their headers speaks against it. */
function mismatch({ model_id, draft_model }: DraftSpec, own: ModelShape, main: ModelShape): string | null {
  const draft = `draft_model "${draft_model}"`;
  if (main.readsWhole || isRecurrent(main)) {
    return `no other model can draft for "${model_id}", which ${limitOf(main)}; leave draft_model out`;
  }
  if (own.readsWhole || isRecurrent(own)) return `${draft} ${limitOf(own)}; choose another one`;
  // 0: the header does not say.
  if (own.vocabulary === main.vocabulary || own.vocabulary === 0 || main.vocabulary === 0) return null;
  return (
    `${draft} has a vocabulary of ${own.vocabulary} tokens and "${model_id}" one of ${main.vocabulary}; ` +
    'choose one with the same'
  );
}

function limitOf({ readsWhole }: ModelShape): string {
  return readsWhole ? 'reads inputs whole and writes nothing' : 'is recurrent and cannot take tokens back';
}

function isRecurrent({ layers }: ModelShape): boolean {
  return layers.some(({ stateLength }) => stateLength > 0);
}

/** The same error, saying which of the two models it is about. */
function naming(thrown: unknown): unknown {
  if (!(thrown instanceof AppError) || thrown.param !== null) return thrown;
  const { code, message, detail, retryAfterSecs, extras } = thrown;
  return new AppError(code, `draft_model: ${message}`, {
    param: 'draft_model',
    detail,
    extras,
    cause: thrown,
    ...(retryAfterSecs === null ? {} : { retryAfterSecs }),
  });
}

function refusal(message: string): AppError {
  return new AppError('invalid_request', message, { param: 'draft_model' });
}
