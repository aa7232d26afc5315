/**
 * Sets values of top-level keys in JSON bytes and leaves every other byte as it was. The bytes are known to
 * be valid JSON with an object at the top.
 */
const quote = 0x22;
const backslash = 0x5c;

interface Member {
  readonly key: string;
  /** Bytes of the value, without the blanks around it. */
  readonly start: number;
  readonly end: number;
}

/**
 * Every top-level occurrence of a key is replaced, so that readers that take the first and those that take
 * the last agree; a key that is not there is put in front.
 */
export function setTopLevelFields(json: Uint8Array, fields: Readonly<Record<string, unknown>>): Uint8Array {
  const bytes = Buffer.from(json.buffer, json.byteOffset, json.byteLength);
  const missing = new Map(Object.entries(fields).filter(([, value]) => value !== undefined));
  const wanted = new Map(missing);
  if (wanted.size === 0) return bytes;
  const parts: Buffer[] = [];
  const open = bytes.indexOf(0x7b) + 1;
  let copied = open;
  let isEmpty = true;
  for (const { key, start, end } of topLevelMembers(bytes)) {
    isEmpty = false;
    if (!wanted.has(key)) continue;
    parts.push(bytes.subarray(copied, start), Buffer.from(JSON.stringify(wanted.get(key))));
    copied = end;
    missing.delete(key);
  }
  parts.push(bytes.subarray(copied));
  const added = [...missing].map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const glue = added.length > 0 && !isEmpty ? ',' : '';
  return Buffer.concat([bytes.subarray(0, open), Buffer.from(added.join(',') + glue), ...parts]);
}

function* topLevelMembers(bytes: Buffer): Generator<Member, void, void> {
  let depth = 0;
  let key: string | null = null;
  let start = -1;
  let end = -1;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number;
    if (isBlank(byte) || (byte === 0x3a && depth === 1)) continue;
    if (depth === 1 && (byte === 0x2c || byte === 0x7d)) {
      if (key !== null && start !== -1) yield { key, start, end };
      key = null;
      start = -1;
      if (byte === 0x7d) return;
      continue;
    }
    const at = i;
    if (byte === quote) i = endOfString(bytes, i) - 1;
    else if (byte === 0x7b || byte === 0x5b) depth++;
    else if (byte === 0x7d || byte === 0x5d) depth--;
    if (key === null) {
      if (byte === quote) key = textOf(bytes, at, i + 1);
      continue;
    }
    if (start === -1) start = at;
    end = i + 1;
  }
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function endOfString(bytes: Buffer, start: number): number {
  for (let i = start + 1; i < bytes.length; i++) {
    if (bytes[i] === backslash) i++;
    else if (bytes[i] === quote) return i + 1;
  }
  return bytes.length;
}

/** A key may be written with escapes: "mod\u0065l". */
function textOf(bytes: Buffer, start: number, end: number): string {
  const raw = bytes.toString('utf8', start, end);
  return raw.includes('\\') ? String(JSON.parse(raw)) : raw.slice(1, -1);
}
