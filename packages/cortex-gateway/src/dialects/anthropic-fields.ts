/** Reads fields of a Messages request; what is wrong is said in Anthropic's words, with the field's path. */
import { AppError } from 'cortex-core/wire/errors';
import type { JsonObject } from './request-body.ts';

/** Words of a client in a message of ours. */
const quotedCharsMax = 64;

export function faultAt(path: string, what: string): AppError {
  return new AppError('invalid_request', `${path}: ${what}`, { param: path });
}

/** A text of the client's, short enough for a message. */
export function quoted(text: string): string {
  return text.length > quotedCharsMax ? `${text.slice(0, quotedCharsMax)}...` : text;
}

export function objectAt(value: unknown, path: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw wrongType(value, path, 'Input should be a valid dictionary');
}

export function listAt(value: unknown, path: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw wrongType(value, path, 'Input should be a valid list');
}

export function stringAt(value: unknown, path: string): string {
  if (typeof value === 'string') return value;
  throw wrongType(value, path, 'Input should be a valid string');
}

export function integerAt(value: unknown, path: string, min: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value)) {
    throw wrongType(value, path, 'Input should be a valid integer');
  }
  if (value < min) throw faultAt(path, `Input should be greater than or equal to ${min}`);
  return value;
}

export function numberAt(value: unknown, path: string, min: number, max: number): number {
  if (typeof value !== 'number') throw wrongType(value, path, 'Input should be a valid number');
  if (value < min) throw faultAt(path, `Input should be greater than or equal to ${min}`);
  if (value > max) throw faultAt(path, `Input should be less than or equal to ${max}`);
  return value;
}

export function booleanAt(value: unknown, path: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrongType(value, path, 'Input should be a valid boolean');
}

/** Null is absent: SDKs of several languages serialise unset fields as null. */
export function maybe<T>(value: unknown, path: string, read: (value: unknown, path: string) => T): T | null {
  return value === undefined || value === null ? null : read(value, path);
}

function wrongType(value: unknown, path: string, what: string): AppError {
  return faultAt(path, value === undefined || value === null ? 'Field required' : what);
}
