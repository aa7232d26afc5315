import { AppError } from '../wire/errors.ts';

export type Method = 'GET' | 'POST' | 'DELETE' | 'HEAD' | 'OPTIONS';

/** `path` has literal parts, `:name` for one part, and `:name*` at its end for the rest, slashes included. */
export interface Route<E> {
  readonly method: Method;
  readonly path: string;
  readonly handler: (exchange: E) => void | Promise<void>;
}

/** Carries what the `Allow` header has to say. */
export class MethodNotAllowed extends AppError {
  readonly allow: string;

  constructor(message: string, allow: string) {
    super('method_not_allowed', message);
    this.allow = allow;
  }
}

export interface MatchedRoute<E> {
  readonly handler: (exchange: E) => void | Promise<void>;
  readonly params: Readonly<Record<string, string>>;
}

/**
 * The first route of that method and path; a GET route answers HEAD. Throws `not_found` or
 * `MethodNotAllowed`. A trailing slash and doubled slashes are forgiven.
 */
export function matchRoute<E>(routes: readonly Route<E>[], method: string, path: string): MatchedRoute<E> {
  const parts = splitPath(path);
  const allowed = new Set<string>();
  for (const route of routes) {
    const params = matchParts(splitPath(route.path), parts);
    if (params === null) continue;
    if (route.method === method || (route.method === 'GET' && method === 'HEAD')) {
      return { handler: route.handler, params };
    }
    allowed.add(route.method);
    if (route.method === 'GET') allowed.add('HEAD');
  }
  if (allowed.size > 0) {
    const allow = [...allowed].join(', ');
    throw new MethodNotAllowed(`${method} is not supported on ${clip(path)}; use ${allow}`, allow);
  }
  throw new AppError('not_found', `there is no ${method} ${clip(path)} here`);
}

function splitPath(path: string): readonly string[] {
  return path.split('/').filter((part) => part !== '');
}

function matchParts(pattern: readonly string[], parts: readonly string[]): Record<string, string> | null {
  const params: Record<string, string> = {};
  for (const [i, expected] of pattern.entries()) {
    const actual = parts[i];
    if (actual === undefined) return null;
    if (expected.startsWith(':') && expected.endsWith('*')) {
      params[expected.slice(1, -1)] = decode(parts.slice(i).join('/'));
      return params;
    }
    if (expected.startsWith(':')) params[expected.slice(1)] = decode(actual);
    else if (expected !== actual) return null;
  }
  return pattern.length === parts.length ? params : null;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new AppError('invalid_request', 'the path is not valid percent-encoding');
  }
}

function clip(path: string): string {
  return path.length > 120 ? `${path.slice(0, 120)}...` : path;
}
