/**
 * Replaces the string value of a top-level key in JSON bytes and leaves every other byte as it was. The
 * bytes are known to be valid JSON with an object at the top.
 */
const quote = 0x22;
const backslash = 0x5c;

/**
 * Every top-level occurrence is replaced, so that readers that take the first and those that take the last
 * agree.
 */
export function spliceTopLevelString(json: Uint8Array, key: string, value: string): Uint8Array {
  const bytes = Buffer.from(json.buffer, json.byteOffset, json.byteLength);
  const replacement = Buffer.from(JSON.stringify(value));
  const parts: Buffer[] = [];
  let copied = 0;
  for (const span of topLevelStrings(bytes, key)) {
    parts.push(bytes.subarray(copied, span.start), replacement);
    copied = span.end;
  }
  if (copied === 0) return bytes;
  parts.push(bytes.subarray(copied));
  return Buffer.concat(parts);
}

/** Byte spans of the string values of `key`, quotes included. */
function topLevelStrings(bytes: Buffer, key: string): { start: number; end: number }[] {
  const spans: { start: number; end: number }[] = [];
  let depth = 0;
  let expectsKey = false;
  let matched = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte === quote) {
      const end = endOfString(bytes, i);
      if (depth === 1 && expectsKey) {
        matched = isKey(bytes, i, end, key);
        expectsKey = false;
      } else if (depth === 1 && matched) {
        spans.push({ start: i, end });
        matched = false;
      }
      i = end - 1;
    } else if (byte === 0x7b || byte === 0x5b) {
      depth++;
      expectsKey = depth === 1;
      if (depth > 1) matched = false;
    } else if (byte === 0x7d || byte === 0x5d) {
      depth--;
    } else if (byte === 0x2c && depth === 1) {
      expectsKey = true;
      matched = false;
    }
  }
  return spans;
}

function endOfString(bytes: Buffer, start: number): number {
  for (let i = start + 1; i < bytes.length; i++) {
    if (bytes[i] === backslash) i++;
    else if (bytes[i] === quote) return i + 1;
  }
  return bytes.length;
}

function isKey(bytes: Buffer, start: number, end: number, key: string): boolean {
  const raw = bytes.toString('utf8', start + 1, end - 1);
  if (raw === key) return true;
  // a key may be written with escapes: "mod\u0065l"
  if (!raw.includes('\\')) return false;
  try {
    return JSON.parse(`"${raw}"`) === key;
  } catch {
    return false;
  }
}
