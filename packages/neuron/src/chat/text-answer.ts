/** What the engine generated -> choices of /v1/completions, whole and in chunks. Pure. */
import type { GenerateResult, StepEvent, TokenLogprob } from 'cortex-core/wire/inference';
import { type AnswerIdentity, toFinishReason, toUsage } from './answer.ts';
import { sumUsages } from './usage.ts';

interface TextDelta {
  readonly text: string;
  readonly logprobs: TextLogprobs | null;
  readonly finishReason: 'stop' | 'length' | null;
}

/** The shape of before chat: four lists side by side, `text_offset` in characters of the choice's text. */
class TextLogprobs {
  readonly tokens: string[] = [];
  readonly token_logprobs: number[] = [];
  readonly top_logprobs: Readonly<Record<string, number>>[] = [];
  readonly text_offset: number[] = [];

  add(each: TokenLogprob, offset: number): void {
    this.tokens.push(each.text);
    this.token_logprobs.push(each.logprob);
    this.top_logprobs.push(Object.fromEntries(each.top.map((alt) => [alt.text, alt.logprob])));
    this.text_offset.push(offset);
  }
}

/** One choice as it grows. */
export class TextAnswer {
  readonly #shown: string;
  #text: string;
  #offset: number;
  #logprobs: TextLogprobs | null = null;
  #finishReason: 'stop' | 'length' | null = null;

  /** `shown`: the prompt, when it is to be echoed. */
  constructor(shown: string) {
    this.#shown = shown;
    this.#text = shown;
    this.#offset = shown.length;
  }

  begin(): TextDelta | null {
    return this.#shown === '' ? null : { text: this.#shown, logprobs: null, finishReason: null };
  }

  step(event: StepEvent): TextDelta | null {
    this.#text += event.text;
    for (const text of event.replayed ?? []) this.#offset += text.length;
    const logprobs = event.logprobs === undefined ? null : this.#take(event.logprobs);
    if (event.text === '' && logprobs === null) return null;
    return { text: event.text, logprobs, finishReason: null };
  }

  finish(result: GenerateResult): TextDelta {
    this.#finishReason = toFinishReason(result.finishReason);
    return { text: '', logprobs: null, finishReason: this.#finishReason };
  }

  whole(): TextDelta {
    return { text: this.#text, logprobs: this.#logprobs, finishReason: this.#finishReason };
  }

  #take(logprobs: readonly TokenLogprob[]): TextLogprobs {
    const own = new TextLogprobs();
    this.#logprobs ??= new TextLogprobs();
    for (const each of logprobs) {
      own.add(each, this.#offset);
      this.#logprobs.add(each, this.#offset);
      this.#offset += each.text.length;
    }
    return own;
  }
}

export function toTextChunk(who: AnswerIdentity, index: number, delta: TextDelta) {
  return { ...head(who), choices: [toChoice(index, delta)] };
}

/** `n`: choices per prompt, whose tokens are counted once each. */
export function toTextWhole(
  who: AnswerIdentity,
  answers: readonly TextAnswer[],
  results: readonly GenerateResult[],
  n: number,
) {
  const choices = answers.map((answer, index) => toChoice(index, answer.whole()));
  return { ...head(who), choices, usage: sumUsages(results.map(toUsage), n) };
}

function toChoice(index: number, { text, logprobs, finishReason }: TextDelta) {
  return { text, index, logprobs, finish_reason: finishReason };
}

function head(who: AnswerIdentity) {
  return { id: who.id, object: 'text_completion' as const, created: who.created, model: who.model };
}
