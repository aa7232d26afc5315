/** The usual turn: text, with reasoning blocks and calls between markers in it. */
import { attempt } from './attempt.ts';
import type { CallForm, ChatFormat, ReasoningMarkers, TurnStart } from './chat-format.ts';
import { Markers, type Steps } from './cursor.ts';
import type { Turn } from './turn.ts';

type Block =
  | { readonly kind: 'reasoning'; readonly markers: ReasoningMarkers }
  | { readonly kind: 'call' }
  | { readonly kind: 'dropped' }
  /** Closes the frame around the answer. */
  | { readonly kind: 'frame' };

export function* readTurn(turn: Turn, format: ChatFormat, start: TurnStart): Steps {
  const forms = turn.tools.isEmpty ? [] : format.calls;
  const blocks = new Map<string, Block>();
  for (const text of format.dropped) blocks.set(text, { kind: 'dropped' });
  const anywhere = forms.filter((form) => form.where === 'anywhere');
  for (const opener of anywhere.flatMap((form) => form.openers)) blocks.set(opener, { kind: 'call' });
  for (const markers of format.reasoning) blocks.set(markers.open, { kind: 'reasoning', markers });
  const { answerFrame } = format;
  if (answerFrame !== null) blocks.set(answerFrame.close, { kind: 'frame' });
  const markers = new Markers([...blocks.keys()]);
  const atStart = forms.filter((form) => form.where === 'start');
  const ending = format.callsEndReasoning ? anywhere : [];
  let isFramed = false;
  if (start.inReasoning) {
    // Some models open the block once more.
    turn.marker('reasoning');
    yield* turn.cursor.takeBlanks();
    yield* turn.cursor.takeOneOf(format.reasoning.map(({ open }) => open));
    const closes = format.reasoning.map(({ close }) => close);
    isFramed = (yield* readReasoning(turn, ending, closes)) && (yield* takeFrame(turn, format));
  }
  for (;;) {
    if (turn.isFresh && atStart.length > 0 && (yield* readAtStart(turn, atStart, markers))) continue;
    const found = yield* turn.cursor.until(markers, (text) => turn.text('content', text));
    if (found === null) return;
    const block = blocks.get(found) as Block;
    if (block.kind === 'call') yield* attempt(turn, anywhere, found, 'content');
    else if (block.kind === 'dropped') {
      turn.cursor.take(found.length);
      turn.marker('content');
    } else if (block.kind === 'frame') yield* closeFrame(turn, found, isFramed);
    else if (block.markers.anywhere || turn.isFresh) {
      turn.cursor.take(found.length);
      const isClosed = yield* readReasoning(turn, ending, [block.markers.close]);
      isFramed = isClosed && (yield* takeFrame(turn, format));
    } else turn.text('content', turn.cursor.take(found.length));
  }
}

/** Directly behind a reasoning block: true when the answer is framed. */
function* takeFrame(turn: Turn, { answerFrame }: ChatFormat): Steps<boolean> {
  if (answerFrame === null) return false;
  turn.text('content', yield* turn.cursor.takeBlanks());
  if ((yield* turn.cursor.takeOneOf([answerFrame.open])) === null) return false;
  turn.marker('content');
  return true;
}

/** The frame's end is one only at the end of the turn; an answer may be about such tags. */
function* closeFrame(turn: Turn, close: string, isFramed: boolean): Steps {
  const text = turn.cursor.take(close.length) + (yield* turn.cursor.takeBlanks());
  if (isFramed && (yield* turn.cursor.peek()) === '') turn.marker('content');
  else turn.text('content', text);
}

/** Forms whose openers count only before any text. True when calls were read. */
function* readAtStart(turn: Turn, forms: readonly CallForm[], markers: Markers): Steps<boolean> {
  turn.text('content', yield* turn.cursor.takeBlanks());
  if ((yield* turn.cursor.lookingAt(markers.literals)) !== null) return false;
  const opener = yield* turn.cursor.lookingAt(forms.flatMap((form) => form.openers));
  return opener !== null && (yield* attempt(turn, forms, opener, 'content'));
}

/**
 * From behind the opening marker to behind the closing one, or to a call that ends the block, or the end.
 * True when it was the closing one.
 */
function* readReasoning(turn: Turn, ending: readonly CallForm[], closes: readonly string[]): Steps<boolean> {
  turn.marker('reasoning');
  const markers = new Markers([...closes, ...ending.flatMap((form) => form.openers)]);
  for (;;) {
    const found = yield* turn.cursor.until(markers, (text) => turn.text('reasoning', text));
    if (found === null) return false;
    if (closes.includes(found)) {
      turn.cursor.take(found.length);
      turn.marker('content');
      return true;
    }
    if (yield* attempt(turn, ending, found, 'reasoning')) return false;
  }
}

/**
 * Whether the prompt's tail leaves a reasoning block open: it ends with an opening marker (and blanks).
 * The tail is what the template rendered last; a hundred characters are enough.
 */
export function startsInReasoning(format: ChatFormat, promptTail: string): boolean {
  const tail = promptTail.trimEnd();
  return format.reasoning.some(({ open }) => tail.endsWith(open.trimEnd()));
}
