/**
 * The error catalogue: every failure that a client can see has a code here, and the code alone decides
 * status, retryability and the type in each dialect's envelope. docs/errors.md lists the same table and
 * a test compares the two.
 */

interface CatalogueRow {
  readonly status: number;
  /** Whether the same request can succeed later without being changed. */
  readonly retryable: boolean;
  readonly openaiType: string;
  readonly anthropicType: string;
}

export const errorCatalogue = {
  // the request
  malformed_json: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  invalid_request: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  unsupported_parameter: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  missing_model_field: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  previous_response_not_found: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  context_length_exceeded: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  vision_unsupported: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  wrong_modality: row(400, false, 'invalid_request_error', 'invalid_request_error'),
  invalid_api_key: row(401, false, 'invalid_request_error', 'authentication_error'),
  model_not_allowed: row(403, false, 'invalid_request_error', 'permission_error'),
  not_found: row(404, false, 'invalid_request_error', 'not_found_error'),
  model_not_found: row(404, false, 'invalid_request_error', 'not_found_error'),
  model_not_loaded: row(404, false, 'invalid_request_error', 'not_found_error'),
  method_not_allowed: row(405, false, 'invalid_request_error', 'invalid_request_error'),
  request_timeout: row(408, true, 'invalid_request_error', 'timeout_error'),
  load_cancelled: row(409, true, 'server_error', 'overloaded_error'),
  model_in_use: row(409, true, 'server_error', 'overloaded_error'),
  request_too_large: row(413, false, 'invalid_request_error', 'request_too_large'),
  prompt_too_long_for_vram: row(413, false, 'invalid_request_error', 'request_too_large'),
  unsupported_media_type: row(415, false, 'invalid_request_error', 'invalid_request_error'),
  invalid_request_body: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  invalid_configuration: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  template_render_failed: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  upgrade_not_supported: row(426, false, 'invalid_request_error', 'invalid_request_error'),
  headers_too_large: row(431, false, 'invalid_request_error', 'invalid_request_error'),
  // model files and loading
  invalid_model_file: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  model_file_not_found: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  repo_fetch_failed: row(422, true, 'server_error', 'api_error'),
  empty_repo: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  quant_not_found: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  does_not_fit: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  insufficient_vram: row(503, true, 'server_error', 'overloaded_error'),
  cuda_unavailable: row(503, false, 'server_error', 'api_error'),
  load_failed: row(500, false, 'server_error', 'api_error'),
  disk_full: row(507, false, 'server_error', 'api_error'),
  // capacity
  rate_limit_exceeded: row(429, true, 'rate_limit_error', 'rate_limit_error'),
  insufficient_quota: row(429, false, 'insufficient_quota', 'rate_limit_error'),
  overloaded: row(503, true, 'server_error', 'overloaded_error'),
  shutting_down: row(503, true, 'server_error', 'overloaded_error'),
  // the fleet
  no_healthy_nodes: row(503, true, 'server_error', 'overloaded_error'),
  node_unhealthy: row(503, true, 'server_error', 'overloaded_error'),
  no_feasible_node: row(422, false, 'invalid_request_error', 'invalid_request_error'),
  model_recovering: row(503, true, 'server_error', 'overloaded_error'),
  model_poisoned: row(503, false, 'server_error', 'api_error'),
  model_loading: row(503, true, 'server_error', 'overloaded_error'),
  cold_load_failed: row(502, true, 'server_error', 'api_error'),
  upstream_connection_error: row(502, true, 'server_error', 'api_error'),
  upstream_malformed_response: row(502, true, 'server_error', 'api_error'),
  upstream_timeout: row(504, true, 'server_error', 'timeout_error'),
  // the device
  device_poisoned: row(503, true, 'server_error', 'overloaded_error'),
  device_gone: row(503, true, 'server_error', 'overloaded_error'),
  job_failed: row(500, false, 'server_error', 'api_error'),
  logits_not_finite: row(500, true, 'server_error', 'api_error'),
  internal_server_error: row(500, true, 'server_error', 'api_error'),
} as const satisfies Record<string, CatalogueRow>;

export type ErrorCode = keyof typeof errorCatalogue;

/** Null for what is no code of the catalogue: also for `constructor`, which every object has. */
export function toErrorCode(code: unknown): ErrorCode | null {
  return typeof code === 'string' && Object.hasOwn(errorCatalogue, code) ? (code as ErrorCode) : null;
}

export interface AppErrorOptions {
  readonly cause?: unknown;
  /** For the log only; never sent to a client. */
  readonly detail?: unknown;
  /** The request field at fault, e.g. `messages.1.role`. */
  readonly param?: string;
  /** Seconds until a retry makes sense; sent as `Retry-After`. */
  readonly retryAfterSecs?: number;
  /** Further public fields of the envelope, e.g. `{ model_id }`. */
  readonly extras?: Readonly<Record<string, unknown>>;
}

/**
 * A failure with two texts: `message` is public and says what failed, on what, and what to do; `cause` and
 * `detail` are for the log.
 */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly detail: unknown;
  readonly param: string | null;
  readonly retryAfterSecs: number | null;
  readonly extras: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, publicMessage: string, options: AppErrorOptions = {}) {
    super(publicMessage, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AppError';
    this.code = code;
    this.detail = options.detail;
    this.param = options.param ?? null;
    this.retryAfterSecs = options.retryAfterSecs ?? null;
    this.extras = options.extras ?? {};
  }

  get status(): number {
    return errorCatalogue[this.code].status;
  }

  get retryable(): boolean {
    return errorCatalogue[this.code].retryable;
  }
}

/**
 * Any thrown value as an AppError; what is none becomes `internal_server_error` with the value as its
 * cause.
 */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  return new AppError('internal_server_error', 'internal error; the server log has the details', {
    cause: thrown,
  });
}

/** `{"error":{message,type,code,param,...extras}}`, the envelope of OpenAI's API. */
export function toOpenAiEnvelope(error: AppError): { readonly error: Readonly<Record<string, unknown>> } {
  return {
    error: {
      message: error.message,
      type: errorCatalogue[error.code].openaiType,
      code: error.code,
      param: error.param,
      ...error.extras,
    },
  };
}

/** `{"type":"error","error":{type,message,...},"request_id"}`, the envelope of Anthropic's API. */
export function toAnthropicEnvelope(error: AppError, requestId: string): Readonly<Record<string, unknown>> {
  return {
    type: 'error',
    error: {
      type: errorCatalogue[error.code].anthropicType,
      message: error.message,
      code: error.code,
      ...error.extras,
    },
    request_id: requestId,
  };
}

/** What crosses the boundary of an owner process or a worker thread in place of an Error. */
export interface SerializedError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param: string | null;
  readonly retryAfterSecs: number | null;
  readonly extras: Readonly<Record<string, unknown>>;
  readonly detail: string | null;
}

export function serializeError(thrown: unknown): SerializedError {
  const error = toAppError(thrown);
  return {
    code: error.code,
    message: error.message,
    param: error.param,
    retryAfterSecs: error.retryAfterSecs,
    extras: error.extras,
    detail: describeCause(error),
  };
}

export function deserializeError(plain: SerializedError): AppError {
  return new AppError(plain.code, plain.message, {
    extras: plain.extras,
    ...(plain.param === null ? {} : { param: plain.param }),
    ...(plain.retryAfterSecs === null ? {} : { retryAfterSecs: plain.retryAfterSecs }),
    ...(plain.detail === null ? {} : { detail: plain.detail }),
  });
}

/** Detail and cause chain as one log line; null when there is neither. */
export function describeCause(error: AppError): string | null {
  const parts: string[] = [];
  if (error.detail !== undefined) {
    parts.push(typeof error.detail === 'string' ? error.detail : JSON.stringify(error.detail));
  }
  let cause: unknown = error.cause;
  for (let depth = 0; cause !== undefined && depth < 5; depth++) {
    parts.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return parts.length === 0 ? null : parts.join(' | caused by: ');
}

function row(status: number, retryable: boolean, openaiType: string, anthropicType: string): CatalogueRow {
  return { status, retryable, openaiType, anthropicType };
}
