/**
 * Signatures of thinking blocks. Clients echo them and drop blocks without one; nobody verifies them here.
 * Where a client asked not to be shown the text (`display: "omitted"`) the signature carries it, so that the
 * model still finds its reasoning in the history.
 */
const plain = 'cortex-1';
const withText = 'cortex-1.';

/** `hidden`: the text that the block itself does not show; empty = it shows all of it. */
export function toSignature(hidden: string): string {
  return hidden === '' ? plain : withText + Buffer.from(hidden, 'utf8').toString('base64url');
}

/** The text that a signature of ours carries; empty for any other. */
export function hiddenText(signature: unknown): string {
  if (typeof signature !== 'string' || !signature.startsWith(withText)) return '';
  return Buffer.from(signature.slice(withText.length), 'base64url').toString('utf8');
}
