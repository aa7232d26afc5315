/** Reading that may fail: either calls come of it, or the text stays text, complete. */
import type { CallForm } from './chat-format.ts';
import { Markers, rejection, type Steps } from './cursor.ts';
import type { Turn } from './turn.ts';

/**
 * Tries to read calls where the text goes on with `opener`, form by form. False when it was no call: then
 * nothing was taken but the opener, which went out as text. A call that began (its name was offered, its
 * arguments started) is never taken back; if its arguments break, they go on as written up to the next
 * closer, so that the client sees what the model wrote and the model can be told.
 */
export function* attempt(
  turn: Turn,
  forms: readonly CallForm[],
  opener: string,
  kind: 'content' | 'reasoning',
): Steps<boolean> {
  const { cursor } = turn;
  const callsBefore = turn.callCount;
  for (const form of forms) {
    if (!form.openers.includes(opener)) continue;
    cursor.hold();
    try {
      cursor.take(opener.length);
      yield* form.read(turn, opener);
      cursor.release();
      return true;
    } catch (thrown) {
      if (thrown !== rejection) throw thrown;
    }
    if (turn.isCallOpen) {
      yield* passBroken(turn, form);
      return true;
    }
    cursor.rewind();
    if (turn.callCount > callsBefore) return true;
  }
  turn.text(kind, cursor.take(opener.length));
  return false;
}

function* passBroken(turn: Turn, form: CallForm): Steps {
  turn.cursor.release();
  const found = yield* turn.cursor.until(new Markers(form.closers), turn.callArguments, true);
  if (found !== null) turn.cursor.take(found.length);
  turn.endCall();
  turn.cursor.release();
}
