/** Reads fields of a Responses request; what is wrong is said in OpenAI's words, with the field's path. */
import { AppError } from 'cortex-core/wire/errors';
import type { JsonObject } from '../request-body.ts';

/** Words of a client in a message of ours. */
const quotedCharsMax = 64;

export type Read<T> = (value: unknown, path: string) => T;

export function faultAt(path: string, message: string): AppError {
  return new AppError('invalid_request', message, { param: path });
}

export function unsupportedAt(path: string, message: string): AppError {
  return new AppError('unsupported_parameter', message, { param: path });
}

export function quoted(text: string): string {
  return text.length > quotedCharsMax ? `${text.slice(0, quotedCharsMax)}...` : text;
}

export function wrongType(value: unknown, path: string, expected: string): AppError {
  if (value === undefined || value === null) {
    return faultAt(path, `Missing required parameter: '${path}'.`);
  }
  const got = Array.isArray(value) ? 'an array' : articleOf(typeof value);
  return faultAt(path, `Invalid type for '${path}': expected ${expected}, but got ${got} instead.`);
}

export function wrongValue(value: string, path: string, supported: readonly string[]): AppError {
  const values = supported.map((each) => `'${each}'`).join(', ');
  return faultAt(path, `Invalid value: '${quoted(value)}' at '${path}'. Supported values are: ${values}.`);
}

export function objectAt(value: unknown, path: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw wrongType(value, path, 'an object');
}

export function listAt(value: unknown, path: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw wrongType(value, path, 'an array');
}

export function textAt(value: unknown, path: string): string {
  if (typeof value === 'string') return value;
  throw wrongType(value, path, 'a string');
}

/** An id or a name: some text, and not more than fits. */
export function nameAt(value: unknown, path: string): string {
  const name = textAt(value, path);
  if (name === '') throw faultAt(path, `Invalid '${path}': empty string. Expected at least one character.`);
  if (name.length <= 512) return name;
  throw faultAt(path, `Invalid '${path}': string too long. Expected at most 512 characters.`);
}

export function booleanAt(value: unknown, path: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrongType(value, path, 'a boolean');
}

export function integerAt(min: number, max = 2 ** 31 - 1): Read<number> {
  return (value, path) => {
    const number = numberAt(min, max)(value, path);
    if (Number.isInteger(number)) return number;
    throw faultAt(path, `Invalid type for '${path}': expected an integer, but got a decimal number instead.`);
  };
}

export function numberAt(min: number, max: number): Read<number> {
  return (value, path) => {
    if (typeof value !== 'number') throw wrongType(value, path, 'a number');
    if (value < min) {
      throw faultAt(path, `Invalid '${path}': below minimum value. Expected >= ${min}, got ${value}.`);
    }
    if (value <= max) return value;
    throw faultAt(path, `Invalid '${path}': above maximum value. Expected <= ${max}, got ${value}.`);
  };
}

export function oneOfAt<T extends string>(supported: readonly T[]): Read<T> {
  return (value, path) => {
    const text = textAt(value, path);
    const known = supported.find((each) => each === text);
    if (known !== undefined) return known;
    throw wrongValue(text, path, supported);
  };
}

/** Null is absent: SDKs of several languages serialise unset fields as null. */
export function maybe<T>(value: unknown, path: string, read: Read<T>): T | null {
  return value === undefined || value === null ? null : read(value, path);
}

function articleOf(type: string): string {
  return type === 'object' ? 'an object' : `a ${type}`;
}
