/** A family of models as detection sees it; `detectFormat` makes a ChatFormat of it and a template. */
import type { CallForm, ChatFormat, ReasoningMarkers } from '../chat-format.ts';

export interface Family {
  readonly name: string;
  /** Whether a template is of this family; families are asked in the order of `detect-format.ts`. */
  readonly matches: (template: string) => boolean;
  /** Forms, the one the template teaches first. */
  readonly calls: (template: string) => readonly CallForm[];
  readonly stops: readonly string[];
  /** Markers the family uses even where the template does not mention them. */
  readonly reasoning?: readonly ReasoningMarkers[];
  /** See ChatFormat; false when absent. */
  readonly callsEndReasoning?: boolean;
  readonly dropped?: readonly string[];
  readonly answerFrame?: ChatFormat['answerFrame'];
  readonly idStyle?: ChatFormat['idStyle'];
  readonly describeTools?: ChatFormat['describeTools'];
  readonly readTurn?: ChatFormat['readTurn'];
}
