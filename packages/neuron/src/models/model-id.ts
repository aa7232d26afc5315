/** Ids from the network are looked up and never become paths. Pure. */
import { AppError } from 'cortex-core/wire/errors';

const pathPattern = /[\\]|(^|[/:])\.\.?(\/|$)|(^|:)[/~]|\0/;

/** `model_id` of a request. Errors: `invalid_request`. */
export function assertModelId(id: string): void {
  if (!pathPattern.test(id)) return;
  throw new AppError(
    'invalid_request',
    'a model id is a name, not a path; add the directory to [models] dirs, use the name without .gguf',
    { param: 'model_id' },
  );
}

/** `draft_model`, which unlike `model_id` names no file in the configuration either. */
export function assertDraftId(id: string): void {
  if (!pathPattern.test(id) && !/\.gguf$/i.test(id)) return;
  throw new AppError(
    'invalid_request',
    'draft_model is the id of a model, not a file; add its directory to [models] dirs and use its name ' +
      'without .gguf',
    { param: 'draft_model' },
  );
}
