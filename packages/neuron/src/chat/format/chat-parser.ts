/** A turn's text in pieces -> reasoning, content and tool calls, as soon as each is certain. */
import type { ChatEvent } from 'cortex-core/wire/chat-events';
import type { ChatFormat } from './chat-format.ts';
import { type OfferedTool, OfferedTools } from './offered-tools.ts';
import { readTurn } from './read-turn.ts';
import { Turn, turnOver } from './turn.ts';

export interface ChatParserOptions {
  /** What the request offers; empty (also for `tool_choice: none`) = calls are text. */
  readonly tools: readonly OfferedTool[];
  /** The prompt left a reasoning block open; see `startsInReasoning`. */
  readonly startsInReasoning: boolean;
  /** Several calls a turn; false = the turn ends where a second call begins. */
  readonly parallel: boolean;
  /** At least 24 characters of [a-z0-9], others each time: for ids of calls. */
  readonly randomText: () => string;
}

/**
 * `push` and `finish` give the events since the last call of either. The events of a turn do not depend on
 * how its text was cut, but for where neighbours of one kind are cut. Never throws on any text.
 */
export interface ChatParser {
  push(text: string): ChatEvent[];
  /** The turn ended: what was held back. */
  finish(): ChatEvent[];
  /** The text read last is reasoning. */
  readonly isReasoning: boolean;
  /** Nothing that follows will make an event: generation may end. */
  readonly isOver: boolean;
  /** Characters looked at so far, repeated looks included. */
  readonly steps: number;
}

export function createChatParser(format: ChatFormat, options: ChatParserOptions): ChatParser {
  const { parallel, randomText } = options;
  const tools = new OfferedTools(options.tools);
  const turn = new Turn({ tools, idStyle: format.idStyle, parallel, randomText });
  const start = { inReasoning: options.startsInReasoning };
  const reading = (format.readTurn ?? readTurn)(turn, format, start);
  let isOver = false;
  const resume = (): ChatEvent[] => {
    try {
      if (!isOver) isOver = reading.next().done === true;
    } catch (thrown) {
      if (thrown !== turnOver) throw thrown;
      isOver = true;
    }
    return turn.takeEvents();
  };
  // Up to the first wait for text: settles where the turn begins.
  resume();
  return {
    push(text) {
      if (text === '' || isOver) return [];
      turn.cursor.push(text);
      return resume();
    },
    finish() {
      turn.cursor.end();
      const events = resume();
      turn.finish();
      isOver = true;
      return [...events, ...turn.takeEvents()];
    },
    get isReasoning() {
      return !isOver && turn.isReasoning;
    },
    get isOver() {
      return isOver;
    },
    get steps() {
      return turn.cursor.steps;
    },
  };
}
