/**
 * GLM 4.5 to 4.7 (and Laguna):
 * `<tool_call>NAME\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>\n</tool_call>`; 4.7 without the line
 * ends. Strings are bare, everything else is JSON.
 * Source: the chat templates of zai-org/GLM-4.6 and GLM-4.7-Flash.
 */
import type { CallForm } from '../chat-format.ts';
import { text } from '../json-grammar.ts';
import { taggedCalls } from '../tagged-calls.ts';
import type { Family } from './family.ts';
import { hermesCalls } from './hermes-calls.ts';

function calls(line: string): CallForm {
  return taggedCalls({
    section: { open: '<tool_call>', close: '</tool_call>' },
    callOpen: '',
    nameEnds: ['\n', '<arg_key>', '</tool_call>'],
    callClose: '',
    parameterOpen: '<arg_key>',
    keyEnds: ['</arg_key>'],
    valueOpen: '<arg_value>',
    valueClose: '</arg_value>',
    grammar: {
      begin: '',
      between: line,
      end: '',
      triggers: ['<tool_call>'],
      isParallel: true,
      call: ({ name }) => [
        text(`<tool_call>${name}${line}`),
        {
          kind: 'parameters',
          style: {
            open: (key) => `<arg_key>${key}</arg_key>${line}<arg_value>`,
            close: `</arg_value>${line}`,
            between: '',
            values: 'bare',
          },
        },
        text('</tool_call>'),
      ],
    },
  });
}

export const glm: Family = {
  name: 'glm',
  matches: (template) => template.includes('<arg_key>'),
  calls: (template) => [
    calls(template.includes('<tool_call>{function-name}<arg_key>') ? '' : '\n'),
    hermesCalls,
  ],
  stops: ['<|user|>', '<|observation|>'],
};
