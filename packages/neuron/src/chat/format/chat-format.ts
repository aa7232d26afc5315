/** What is known about how a model writes reasoning, content and tool calls; a value per family. */
import type { Steps } from './cursor.ts';
import type { OfferedTool } from './offered-tools.ts';
import type { Turn } from './turn.ts';

export interface ChatFormat {
  /** The family, e.g. `hermes`; also the name of its tests. */
  readonly name: string;
  readonly reasoning: readonly ReasoningMarkers[];
  /** Ways to write calls; the first is the one the model was trained on, the others are read too. */
  readonly calls: readonly CallForm[];
  /** A call inside an open reasoning block ends the block; else it is a thought. */
  readonly callsEndReasoning: boolean;
  /** Markers that frame text and mean nothing to a client. */
  readonly dropped: readonly string[];
  /**
   * Frames an answer behind reasoning: `open` directly behind the block, `close` at the turn's end; elsewhere
   * both are text.
   */
  readonly answerFrame: { readonly open: string; readonly close: string } | null;
  /**
   * Texts that end the turn. Most are end-of-generation tokens of the vocabulary already; as stops of the
   * request they also end it where a file's metadata forgot them. None that a page of HTML has: `</s>` is
   * known by its token alone.
   */
  readonly stops: readonly string[];
  readonly idStyle: IdStyle;
  /**
   * The system text that tells the model its tools, for templates that do not read `tools`; null when the
   * template does it.
   */
  readonly describeTools: ((tools: readonly ToolDescription[]) => string) | null;
  /** Reads a whole turn, where a turn is not text with blocks in it (Harmony, Functionary 3.2). */
  readonly readTurn: ((turn: Turn, format: ChatFormat, start: TurnStart) => Steps) | null;
}

export interface TurnStart {
  /** The prompt ends inside a reasoning block. */
  readonly inReasoning: boolean;
}

/**
 * How an id is made where the model gives none: `call` = call_ and 24 characters; `nine` = nine characters
 * (Mistral's templates refuse others); `kimi` = functions.name:index.
 */
export type IdStyle = 'call' | 'nine' | 'kimi';

export interface ReasoningMarkers {
  readonly open: string;
  readonly close: string;
  /** Also in the middle of text (special tokens); else only where no text was said yet. */
  readonly anywhere: boolean;
}

export interface ToolDescription {
  readonly name: string;
  readonly description?: string | undefined;
  readonly parameters?: Readonly<Record<string, unknown>> | undefined;
}

/** One way to write calls. */
export interface CallForm {
  /** Any of these may begin a call; they are text again when none follows. */
  readonly openers: readonly string[];
  /** `start`: only where no text was said yet; for openers that text is full of, like `{`. */
  readonly where: 'anywhere' | 'start';
  /** Where a call whose arguments broke ends. */
  readonly closers: readonly string[];
  /** Reads what follows the opener; throws `rejection` when it is no call. */
  readonly read: (turn: Turn, opener: string) => Steps;
  readonly grammar: CallGrammar;
}

/**
 * The text of calls as a grammar spells it: `begin`, then calls with `between` in between, then `end`. A
 * call is `parts` of literals and of what the tool decides.
 */
export interface CallGrammar {
  readonly begin: string;
  readonly between: string;
  readonly end: string;
  /**
   * Texts at which a lazy grammar wakes; calls begin with one of them. Empty = nothing can wake it, because
   * the opener is plain text.
   */
  readonly triggers: readonly string[];
  /** Whether several calls may follow each other. */
  readonly isParallel: boolean;
  readonly call: (tool: OfferedTool) => readonly GrammarPart[];
}

export type GrammarPart =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'oneOf'; readonly texts: readonly string[] }
  /** The arguments as JSON that fits the tool's schema. */
  | { readonly kind: 'arguments' }
  /** `[0-9]{1,3}` and the like, in GBNF. */
  | { readonly kind: 'pattern'; readonly gbnf: string }
  /** Parameters one after the other, for formats without JSON. */
  | { readonly kind: 'parameters'; readonly style: ParameterStyle };

export interface ParameterStyle {
  readonly open: (name: string, isString: boolean) => string;
  readonly close: string;
  readonly between: string;
  /** How a value is written: `bare` = strings without quotes up to `close`, and the rest JSON. */
  readonly values: 'bare' | 'json' | 'gemma';
  /** The token around strings, for `gemma`. */
  readonly quote?: string;
}
