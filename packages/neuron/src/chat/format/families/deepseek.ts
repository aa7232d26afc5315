/**
 * DeepSeek V3, R1 and V3.1. Up to R1 a call is `function<｜tool▁sep｜>NAME` and a fenced JSON block, since
 * V3.1 `NAME<｜tool▁sep｜>{...}`; both are read whatever the template says.
 * Source: the chat templates of deepseek-ai/DeepSeek-R1 and DeepSeek-V3.1.
 */
import type { CallForm, CallGrammar, ToolDescription } from '../chat-format.ts';
import type { Steps } from '../cursor.ts';
import { text } from '../json-grammar.ts';
import { type NamedCall, namedCalls, readToolName } from '../named-calls.ts';
import type { Turn } from '../turn.ts';
import type { Family } from './family.ts';

const sep = '<｜tool▁sep｜>';
const section = { open: '<｜tool▁calls▁begin｜>', close: '<｜tool▁calls▁end｜>' };
const callOpen = '<｜tool▁call▁begin｜>';
const callClose = '<｜tool▁call▁end｜>';

function* readName(turn: Turn): Steps<NamedCall> {
  const isOld = (yield* turn.cursor.takeOneOf([`function${sep}`])) !== null;
  const [tool] = yield* readToolName(turn, isOld ? ['\n'] : [sep]);
  yield* turn.cursor.takeBlanks();
  if (yield* turn.cursor.takeOneOf(['```json'])) yield* turn.cursor.takeBlanks();
  return { tool };
}

function grammar(isFenced: boolean): CallGrammar {
  return {
    begin: section.open,
    between: isFenced ? '\n' : '',
    end: section.close,
    triggers: [section.open],
    isParallel: true,
    call: ({ name }) =>
      isFenced
        ? [
            text(`${callOpen}function${sep}${name}\n\`\`\`json\n`),
            { kind: 'arguments' },
            text(`\n\`\`\`${callClose}`),
          ]
        : [text(`${callOpen}${name}${sep}`), { kind: 'arguments' }, text(callClose)],
  };
}

function calls(isFenced: boolean): CallForm {
  return namedCalls({
    section,
    callOpen,
    callClose: [callClose],
    afterArguments: ['```'],
    readName,
    grammar: grammar(isFenced),
  });
}

export const deepseek: Family = {
  name: 'deepseek',
  matches: (template) =>
    template.includes('<｜tool▁call▁begin｜>') || template.includes('<｜tool▁calls▁begin｜>'),
  calls: (template) => [calls(template.includes('```json'))],
  stops: ['<｜end▁of▁sentence｜>'],
  describeTools,
};

/** Several of DeepSeek's templates replay calls and results but do not say which tools there are. */
function describeTools(tools: readonly ToolDescription[]): string {
  return [
    '## Tools',
    'You can use these tools:',
    ...tools.map(
      ({ name, description = '', parameters = {} }) =>
        `### ${name}\nDescription: ${description}\nParameters (JSON Schema): ${JSON.stringify(parameters)}`,
    ),
    'To use one, write exactly this, with its name and a JSON object of arguments:',
    `${section.open}${callOpen}NAME${sep}ARGUMENTS${callClose}${section.close}`,
    `For several, repeat the part from ${callOpen} to ${callClose}. Use tools only where they are needed.`,
  ].join('\n');
}
