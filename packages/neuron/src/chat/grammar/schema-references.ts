import { invalidSchema, isSchemaObject } from './schema-context.ts';

export interface References {
  /** What a local `$ref` names. Errors: `invalid_request` for one that is not local, or not there. */
  resolve(reference: unknown, place: string): { readonly pointer: string; readonly schema: unknown };
}

/** `#`, `#/$defs/x` (RFC 6901), and `#name` for an `$anchor`. */
export function createReferences(root: unknown): References {
  let anchors: ReadonlyMap<string, unknown> | null = null;
  return {
    resolve(reference, place) {
      const fail = (why: string): never => {
        const text = typeof reference === 'string' ? reference.slice(0, 100) : typeof reference;
        throw invalidSchema(place, `"${text}" ${why}`);
      };
      if (typeof reference !== 'string') return fail('must be text');
      if (!reference.startsWith('#')) return fail('is not in this schema; put what it names under $defs');
      const pointer = decode(reference.slice(1)) ?? fail('is not a valid reference');
      if (pointer !== '' && !pointer.startsWith('/')) {
        anchors ??= findAnchors(root);
        return { pointer, schema: anchors.get(pointer) ?? fail('names no $anchor of this schema') };
      }
      let schema: unknown = root;
      for (const part of pointer.split('/').slice(1)) {
        const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
        const isThere = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key);
        if (!isThere) fail('names nothing in this schema');
        schema = (schema as Record<string, unknown>)[key];
      }
      return { pointer, schema };
    },
  };
}

function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function findAnchors(root: unknown): ReadonlyMap<string, unknown> {
  const anchors = new Map<string, unknown>();
  const left: unknown[] = [root];
  while (left.length > 0) {
    const part = left.pop();
    if (typeof part !== 'object' || part === null) continue;
    if (isSchemaObject(part) && typeof part.$anchor === 'string') anchors.set(part.$anchor, part);
    left.push(...Object.values(part));
  }
  return anchors;
}
