/** `cortex explain` as text. Pure. */
import type { Explanation } from './fleet-answer.ts';
import type { Style } from './style.ts';
import { renderTable } from './table.ts';
import { toPrintable } from './text.ts';

const verbs: Readonly<Record<string, string>> = {
  forward: 'goes to',
  load: 'is loaded on',
  wait: 'waits for',
};

export function renderExplanation(explanation: Explanation, style: Style): string {
  const { requested, model, promptTokens, decision, node, why, turn, candidates } = explanation;
  const name = toPrintable(requested === model ? model : `${requested} (${model})`);
  const where =
    node === null
      ? style.red('is refused')
      : `${verbs[decision] ?? decision} ${style.green(toPrintable(node))}`;
  const head = `${style.bold(name)}, ${promptTokens} prompt tokens: ${where}; ${toPrintable(why)}${
    turn === null ? '' : `; ${toPrintable(turn)}`
  }`;
  if (candidates.length === 0) return `${head}\n`;
  const columns = [
    { title: 'NODE' },
    { title: 'STATE' },
    { title: 'EXPECTED', align: 'right' as const },
    { title: 'QUEUE', align: 'right' as const },
    { title: 'TURN', align: 'right' as const },
    { title: 'EVICT', align: 'right' as const },
    { title: 'LOAD', align: 'right' as const },
    { title: 'PREFILL', align: 'right' as const },
    { title: 'WHY' },
  ];
  return `${head}\n\n${renderTable(
    columns,
    candidates.map((each) => rowOf(each, style)),
  )}\n`;
}

function rowOf(candidate: Explanation['candidates'][number], style: Style): readonly string[] {
  const { node, state, verdict, why, evict, terms } = candidate;
  const shown = toPrintable(node);
  const leaves = evict.length === 0 ? '' : ` (evicts ${evict.map(toPrintable).join(', ')})`;
  const cached = terms === null || terms.cachedTokens === 0 ? '' : ` (${terms.cachedTokens} tokens cached)`;
  return [
    verdict === 'chosen' ? style.green(shown) : verdict === 'cannot' ? style.dim(shown) : shown,
    state === 'cannot' ? '-' : toPrintable(state),
    ...(terms === null
      ? ['-', '-', '-', '-', '-', '-']
      : [terms.expected, terms.queue, terms.turn, terms.evict, terms.load, terms.prefill].map(secs)),
    `${verdict === 'chosen' ? style.green('chosen: ') : ''}${toPrintable(why)}${leaves}${cached}`,
  ];
}

function secs(value: number): string {
  if (value === 0) return '0';
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} s`;
}
