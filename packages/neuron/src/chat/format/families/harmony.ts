/**
 * gpt-oss's Harmony: a turn is a row of messages, each `<|start|>assistant` (the first is in the prompt),
 * ` to=RECIPIENT` in the role or in the channel, `<|channel|>NAME`, `<|constrain|>TYPE`, `<|message|>`, a
 * body and `<|end|>`, `<|call|>` or `<|return|>`. The channel analysis is reasoning, final and commentary
 * are content, a body to `functions.NAME` is a call, in whatever channel.
 * Source: OpenAI's Harmony guide, the chat template of openai/gpt-oss-120b.
 *
 * A message to a recipient that was not offered (the model knows browser and python from its training) is
 * text, header included.
 */
import { attempt } from '../attempt.ts';
import type { CallForm, ChatFormat, TurnStart } from '../chat-format.ts';
import { Markers, rejection, type Steps } from '../cursor.ts';
import { copyArguments, isAtArguments } from '../json-value.ts';
import { readUntil } from '../named-calls.ts';
import type { OfferedTool } from '../offered-tools.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';

const ends = ['<|end|>', '<|call|>', '<|return|>'];
/** A model that forgets the end begins the next message. */
const bodyEnds = new Markers([...ends, '<|start|>', '<|channel|>']);
const headerOpeners = ['<|start|>', '<|channel|>', ' to='];
/** Characters of a header without the recipient's name. */
const headerLengthMax = 96;
const channels = /<\|channel\|>\s*(analysis|commentary|final)\b/g;

interface Header {
  readonly channel: string | null;
  readonly recipient: string | null;
}

function* readHarmony(turn: Turn, format: ChatFormat, start: TurnStart): Steps {
  const { cursor } = turn;
  if (start.inReasoning) yield* readBody(turn, 'reasoning');
  for (let isStart = true; ; isStart = false) {
    // ` to=` opens a header only where the prompt's `<|start|>assistant` stands before it.
    const openers = isStart && !start.inReasoning ? headerOpeners : headerOpeners.slice(0, 2);
    const opener = yield* cursor.lookingAt(openers);
    if (opener !== null) {
      if (!(yield* readMessage(turn, format, opener))) yield* readBody(turn, 'content');
    } else if ((yield* cursor.peek()) === '') return;
    else yield* readBody(turn, 'content');
  }
}

/** One message; false when what looked like a header is none: then a piece of it went out as text. */
function* readMessage(turn: Turn, format: ChatFormat, opener: string): Steps<boolean> {
  const { cursor } = turn;
  cursor.hold();
  try {
    const header = yield* readHeader(turn);
    if (header.recipient === null || header.recipient === 'assistant' || header.recipient === 'all') {
      cursor.release();
      turn.marker(header.channel === 'analysis' ? 'reasoning' : 'content');
      yield* readBody(turn, header.channel === 'analysis' ? 'reasoning' : 'content');
      return true;
    }
  } catch (thrown) {
    if (thrown !== rejection) throw thrown;
    if ((yield* cursor.peek()) === '' && cursor.takeHeld(isHeaderBegun)) return true;
  }
  cursor.rewind();
  return yield* attempt(turn, format.calls, opener, 'content');
}

function* readHeader({ cursor, tools }: Turn): Steps<Header> {
  const [given] = yield* readUntil(cursor, ['<|message|>'], headerLengthMax + tools.nameLengthMax);
  const header = given.replaceAll(/<\|constrain\|>\s*[\w./-]*/g, ' ');
  // `<|channel|>commentary<|channel|>analysis`: the model corrects itself, the last one counts.
  const channel = [...header.matchAll(channels)].at(-1)?.[1] ?? null;
  const recipient = /(?:^|\s)to=([^\s<]+)/.exec(header)?.[1] ?? null;
  const rest = header
    .replace(/^<\|start\|>assistant/, '')
    .replaceAll(channels, '')
    .replace(/(^|\s)to=[^\s<]+/, '');
  if (!/^\s*(json|code|text)?\s*$/.test(rest) || (channel === null && recipient === null)) throw rejection;
  return { channel, recipient };
}

/** Whether a text is the beginning of a header, which says nothing to anybody when the turn ends there. */
function isHeaderBegun(given: string): boolean {
  const parts = /^(?:<\|start\|>([a-z]*)(?: to=[\w.-]*)?)?(?:<\|channel\|>([a-z]*)(.*))?$/.exec(given);
  if (parts === null) return false;
  const [, role = 'assistant', channel = '', rest = ''] = parts;
  if (!'assistant'.startsWith(role)) return false;
  const names = ['analysis', 'commentary', 'final'];
  if (rest === '') return names.some((name) => name.startsWith(channel));
  return names.includes(channel) && /^ ?(to=[\w.-]*)? ?(<\|constrain\|>)?[a-z]*$/.test(rest);
}

function* readBody(turn: Turn, kind: 'content' | 'reasoning'): Steps {
  const { cursor } = turn;
  const found = yield* cursor.until(bodyEnds, (piece) => turn.text(kind, piece));
  if (found === null || !ends.includes(found)) return;
  cursor.take(found.length);
  turn.marker('content');
}

const harmonyCalls: CallForm = {
  openers: headerOpeners,
  where: 'start',
  closers: ends,
  *read(turn: Turn, opener: string): Steps {
    const { cursor } = turn;
    cursor.take(-opener.length);
    const { recipient } = yield* readHeader(turn);
    const tool: OfferedTool | undefined = recipient === null ? undefined : turn.tools.find(recipient);
    if (tool === undefined) throw rejection;
    yield* cursor.takeBlanks();
    if ((yield* cursor.lookingAt(ends)) !== null) {
      turn.startCall(tool);
      turn.callArguments('{}');
    } else {
      if (!(yield* isAtArguments(cursor))) throw rejection;
      turn.startCall(tool);
      yield* copyArguments(cursor, turn.callArguments);
    }
    turn.endCall();
    yield* cursor.takeBlanks();
    yield* cursor.takeOneOf(ends);
  },
  grammar: {
    begin: '',
    between: '',
    end: '',
    triggers: ['<|channel|>commentary to=functions.', '<|start|>assistant to=functions.'],
    isParallel: false,
    // Behind the analysis the role is still to be written. The token that ends the message ends the turn.
    call: ({ name }) => [
      {
        kind: 'oneOf',
        texts: [
          `<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>`,
          `<|start|>assistant<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>`,
          `<|start|>assistant to=functions.${name}<|channel|>commentary <|constrain|>json<|message|>`,
        ],
      },
      { kind: 'arguments' },
    ],
  },
};

export const harmony: Family = {
  name: 'harmony',
  matches: (template) => template.includes('<|channel|>') && template.includes('<|message|>'),
  calls: () => [harmonyCalls],
  stops: ['<|call|>', '<|return|>'],
  readTurn: readHarmony,
};

/** How the prompt may leave the analysis open. */
export const harmonyAnalysis = {
  open: '<|channel|>analysis<|message|>',
  close: '<|end|>',
  anywhere: true,
};
