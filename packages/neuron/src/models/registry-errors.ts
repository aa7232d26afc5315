/** Why a model does not serve, in the words of the registry. */
import { AppError } from 'cortex-core/wire/errors';

export function unloadedMidway(id: string): AppError {
  return new AppError('model_not_loaded', `model "${id}" was unloaded during the answer`);
}

export function shuttingDown(): AppError {
  return new AppError('shutting_down', 'this neuron is shutting down; try elsewhere', {
    retryAfterSecs: 15,
  });
}

export function inUse(id: string): AppError {
  const message = `model "${id}" was used since it was looked at, and stays; look again`;
  return new AppError('model_in_use', message, { extras: { model_id: id }, retryAfterSecs: 1 });
}

export function notLoaded(id: string): AppError {
  return new AppError('model_not_loaded', `model '${id}' not loaded`, { extras: { model_id: id } });
}

export function notFound(id: string): AppError {
  return new AppError(
    'model_not_found',
    `model "${id.slice(0, 200)}" is not loaded here; POST /models/load first`,
    {
      param: 'model',
      extras: { model_id: id.slice(0, 200) },
    },
  );
}
