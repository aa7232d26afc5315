/**
 * Calls with every parameter between markers of its own:
 * `<function=f>\n<parameter=city>\nParis\n</parameter>\n</function>`.
 *
 * The arguments become JSON on the way, with the types of the tool's schema. A string goes out while it
 * arrives; anything else once its end is known. A value may hold its own closing marker: it ends only where
 * something that may follow a value follows.
 */
import type { CallForm, CallGrammar } from './chat-format.ts';
import { Markers, rejection, type Steps } from './cursor.ts';
import { escapeJson, toJsonString } from './json-value.ts';
import { readToolName, readUntil } from './named-calls.ts';
import { type OfferedTool, parameterTypes } from './offered-tools.ts';
import {
  isAlwaysString,
  isStringOrNull,
  noString,
  onlyString,
  toJsonValue,
  type ValueType,
} from './schema-types.ts';
import type { Turn } from './turn.ts';

export interface TaggedCalls {
  /** Frames all calls, or each of them. */
  readonly section: { readonly open: string; readonly close: string };
  /** '' when the name follows the section's marker. */
  readonly callOpen: string;
  /** Further openers that begin a call without a section, e.g. `<function=`. */
  readonly alsoOpens?: readonly string[];
  readonly nameEnds: readonly string[];
  /** '' when the section's marker closes the call. */
  readonly callClose: string;
  readonly parameterOpen: string;
  readonly keyEnds: readonly string[];
  /** Between key and value, after blanks; '' when `keyEnds` is all. */
  readonly valueOpen: string;
  readonly valueClose: string;
  /** Values stand on lines of their own: the line ends around them are not part of them. */
  readonly isFramed?: boolean;
  /** The end of the key says that the value is (or is not) a string. */
  readonly saysString?: (keyEnd: string) => boolean | undefined;
  readonly grammar: CallGrammar;
}

const keyLengthMax = 256;
/** Above this many characters a text is no `null` any more. */
const nullLengthMax = 16;

export function taggedCalls(options: TaggedCalls): CallForm {
  const { section, callClose } = options;
  return {
    openers: [section.open, ...(options.alsoOpens ?? [])],
    closers: [callClose, section.close, section.open].filter((text) => text !== ''),
    where: 'anywhere',
    grammar: options.grammar,
    read: (turn, opener) => readCalls(turn, options, opener),
  };
}

function* readCalls(turn: Turn, options: TaggedCalls, opener: string): Steps {
  const { cursor } = turn;
  const { section, callOpen } = options;
  yield* cursor.takeBlanks();
  if (callOpen !== '' && opener !== callOpen) yield* cursor.expect(callOpen);
  for (;;) {
    yield* readCall(turn, options);
    yield* cursor.takeBlanks();
    if (callOpen === '' || (yield* cursor.takeOneOf([callOpen])) === null) break;
  }
  yield* cursor.takeOneOf([section.close]);
}

function* readCall(turn: Turn, options: TaggedCalls): Steps {
  const { cursor } = turn;
  const [tool, end] = yield* readToolName(turn, options.nameEnds);
  // Some ends belong to what follows: `<tool_call>name<arg_key>`.
  if (end === options.parameterOpen || end === options.section.close) cursor.take(-end.length);
  yield* cursor.takeBlanks();
  const next = yield* cursor.lookingAt(afterValue(options));
  if (next === null) throw rejection;
  turn.startCall(tool);
  turn.callArguments('{');
  for (let isFirst = true; ; isFirst = false) {
    yield* cursor.takeBlanks();
    const found = yield* cursor.lookingAt(afterValue(options));
    if (found === null) {
      cursor.takeCut(afterValue(options));
      throw rejection;
    }
    if (found !== options.parameterOpen) {
      if (found === options.callClose) cursor.take(found.length);
      break;
    }
    cursor.take(found.length);
    if (!isFirst) turn.callArguments(', ');
    yield* readParameter(turn, options, tool);
  }
  turn.callArguments('}');
  turn.endCall();
}

/** What may follow a parameter or the name. */
function afterValue({ parameterOpen, callClose, section }: TaggedCalls): readonly string[] {
  return [parameterOpen, callClose, section.close].filter((text) => text !== '');
}

function* readParameter(turn: Turn, options: TaggedCalls, tool: OfferedTool): Steps {
  const { cursor } = turn;
  const [key, end] = yield* readUntil(cursor, options.keyEnds, keyLengthMax);
  if (options.valueOpen !== '') {
    yield* cursor.takeBlanks();
    if ((yield* cursor.takeOneOf([options.valueOpen])) === null) {
      cursor.takeCut([options.valueOpen]);
      throw rejection;
    }
  }
  const name = key.trim();
  turn.callArguments(`${toJsonString(name)}: `);
  const said = options.saysString?.(end);
  const types = said === undefined ? parameterTypes(tool, name) : said ? onlyString : noString;
  const value = new BareValue(types, options.isFramed ?? false, turn.callArguments);
  const markers = new Markers([options.valueClose]);
  for (;;) {
    const found = yield* cursor.until(markers, (text) => value.push(text), true);
    if (found === null) {
      value.cut();
      throw rejection;
    }
    cursor.take(found.length);
    if (yield* isFollowed(turn, options)) break;
    value.push(found);
  }
  value.end();
}

/** Whether what follows a closing marker shows that it closed a value. */
function* isFollowed(turn: Turn, options: TaggedCalls): Steps<boolean> {
  const { cursor } = turn;
  cursor.hold();
  yield* cursor.takeBlanks();
  const follows =
    (yield* cursor.lookingAt(afterValue(options))) !== null || cursor.takeCut(afterValue(options));
  cursor.rewind();
  return follows;
}

/** A value without quotes, and without the line ends that frame it if there are any. */
class BareValue {
  readonly #types: ReadonlySet<ValueType>;
  readonly #isFramed: boolean;
  readonly #out: (text: string) => void;
  #pieces: string[] = [];
  #length = 0;
  #isStreaming = false;
  #isStarted = false;
  /** A line end that may be the frame's. */
  #held = '';

  constructor(types: ReadonlySet<ValueType>, isFramed: boolean, out: (text: string) => void) {
    this.#types = types;
    this.#isFramed = isFramed;
    this.#out = out;
  }

  push(given: string): void {
    if (!this.#isFramed) {
      this.#take(given);
      return;
    }
    let text = this.#held + given;
    if (!this.#isStarted) {
      if (text === '\r') {
        this.#held = text;
        return;
      }
      this.#isStarted = true;
      text = text.replace(/^\r?\n/, '');
    }
    const cut = /\r?\n?$/.exec(text)?.index ?? text.length;
    this.#held = text.slice(cut);
    this.#take(text.slice(0, cut));
  }

  /** The value is whole. */
  end(): void {
    if (this.#held === '\r') this.#take(this.#held);
    if (this.#isStreaming) this.#out('"');
    else this.#out(toJsonValue(this.#pieces.join(''), this.#types));
  }

  /** The turn ended in the middle of it; a line end held back may have been the frame's. */
  cut(): void {
    if (!this.#isStreaming) this.#out(this.#pieces.join(''));
  }

  #take(text: string): void {
    if (this.#isStreaming) {
      this.#out(escapeJson(text));
      return;
    }
    this.#pieces.push(text);
    this.#length += text.length;
    const isString =
      isAlwaysString(this.#types) || (isStringOrNull(this.#types) && this.#length > nullLengthMax);
    if (!isString || this.#length === 0) return;
    this.#isStreaming = true;
    this.#out(`"${escapeJson(this.#pieces.join(''))}`);
    this.#pieces = [];
  }
}
