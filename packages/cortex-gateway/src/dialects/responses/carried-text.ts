/**
 * Text that a client carries for us in an opaque field (`encrypted_content`), so that a conversation that is
 * not stored keeps its reasoning. It is encoded, not encrypted: whoever gets it has seen the answer anyway.
 */
const mark = 'cortex-1:';
/** The mark is nine bytes: in base64 it has an end of its own. */
const prefix = toBase64(mark);

export function toCarried(text: string): string {
  return toBase64(mark + text);
}

/** The text; null for what is none of ours. */
export function fromCarried(value: string): string | null {
  if (!value.startsWith(prefix)) return null;
  return Buffer.from(value, 'base64').toString('utf8').slice(mark.length);
}

function toBase64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}
