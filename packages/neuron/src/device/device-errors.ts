/** What a device rejects with beside a job's own codes: the three faults that are the device's. */
import {
  AppError,
  type AppErrorOptions,
  deserializeError,
  type SerializedError,
} from 'cortex-core/wire/errors';

/** The owner's native state is broken; nothing more is sent to it. */
export class Poisoned extends AppError {
  readonly deviceId: string;

  constructor(deviceId: string, message: string, options: AppErrorOptions = {}) {
    super('device_poisoned', message, options);
    this.name = 'Poisoned';
    this.deviceId = deviceId;
  }
}

/** The owner ended, with what it had. */
export class Gone extends AppError {
  readonly deviceId: string;

  constructor(deviceId: string, message: string, options: AppErrorOptions = {}) {
    super('device_gone', message, options);
    this.name = 'Gone';
    this.deviceId = deviceId;
  }
}

/** The job itself went wrong; owner and device are well. */
export class JobFailed extends AppError {
  constructor(message: string, options: AppErrorOptions = {}) {
    super('job_failed', message, options);
    this.name = 'JobFailed';
  }
}

/** An owner's error under its class again, which does not survive the crossing. */
export function toDeviceError(deviceId: string, plain: SerializedError): AppError {
  const error = deserializeError(plain);
  const options: AppErrorOptions = {
    detail: error.detail,
    extras: error.extras,
    ...(error.param === null ? {} : { param: error.param }),
    ...(error.retryAfterSecs === null ? {} : { retryAfterSecs: error.retryAfterSecs }),
  };
  switch (error.code) {
    case 'device_poisoned':
      return new Poisoned(deviceId, error.message, options);
    case 'device_gone':
      return new Gone(deviceId, error.message, options);
    case 'job_failed':
      return new JobFailed(error.message, options);
    default:
      return error;
  }
}

export function toGone(deviceId: string, what: string, stderrTail: readonly string[] = []): Gone {
  return new Gone(deviceId, `device ${deviceId} ${what}`, {
    retryAfterSecs: 2,
    ...(stderrTail.length === 0 ? {} : { detail: stderrTail.join('\n') }),
  });
}

export function toPoisoned(deviceId: string, reason: string, isReplaced: boolean): Poisoned {
  const way = isReplaced
    ? 'its owner is being replaced'
    : 'restart the neuron to recover; with device_worker = "process" it would recover by itself';
  return new Poisoned(deviceId, `device ${deviceId} is poisoned (${reason}); ${way}`, { retryAfterSecs: 2 });
}

export function toOverloaded(deviceId: string, jobs: number): AppError {
  const text = `device ${deviceId} has ${jobs} jobs, its limit; try again`;
  return new AppError('overloaded', text, { retryAfterSecs: 1 });
}
