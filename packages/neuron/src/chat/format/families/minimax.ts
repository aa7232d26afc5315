/**
 * MiniMax M2: `<minimax:tool_call>\n<invoke name="f">\n<parameter name="k">v</parameter>\n</invoke>\n...`;
 * DeepSeek V3.2 and V4 write the same in their own tags, and say of each value whether it is a string.
 * Source: the chat templates of MiniMaxAI/MiniMax-M2 and deepseek-ai/DeepSeek-V3.2.
 */
import type { CallForm } from '../chat-format.ts';
import { text } from '../json-grammar.ts';
import { taggedCalls } from '../tagged-calls.ts';
import type { Family } from './family.ts';

interface Invoke {
  readonly section: string;
  /** Before every tag's name, e.g. `｜DSML｜`. */
  readonly prefix: string;
  readonly saysString: boolean;
}

/** What the end of a key says about the value; nothing when the model left it out. */
function readStringMark(keyEnd: string): boolean | undefined {
  return keyEnd.includes('string=') ? keyEnd.includes('"true"') : undefined;
}

function invokeCalls({ section, prefix, saysString }: Invoke): CallForm {
  const open = (tag: string): string => `<${prefix}${tag}`;
  const close = (tag: string): string => `</${prefix}${tag}>`;
  const stringMark = (isString: boolean): string => (saysString ? `" string="${isString}">` : '">');
  return taggedCalls({
    section: { open: `${open(section)}>`, close: close(section) },
    callOpen: `${open('invoke')} name="`,
    nameEnds: ['">'],
    callClose: close('invoke'),
    parameterOpen: `${open('parameter')} name="`,
    keyEnds: saysString ? [stringMark(true), stringMark(false), '">'] : ['">'],
    valueOpen: '',
    valueClose: close('parameter'),
    ...(saysString ? { saysString: readStringMark } : {}),
    grammar: {
      begin: `${open(section)}>\n`,
      between: '\n',
      end: `\n${close(section)}`,
      triggers: [`${open(section)}>`],
      isParallel: true,
      call: ({ name }) => [
        text(`${open('invoke')} name="${name}">\n`),
        {
          kind: 'parameters',
          style: {
            open: (key, isString) => `${open('parameter')} name="${key}${stringMark(isString)}`,
            close: `${close('parameter')}\n`,
            between: '',
            values: 'bare',
          },
        },
        text(close('invoke')),
      ],
    },
  });
}

export const minimax: Family = {
  name: 'minimax',
  matches: (template) => template.includes('<minimax:tool_call>'),
  calls: () => [invokeCalls({ section: 'minimax:tool_call', prefix: '', saysString: false })],
  callsEndReasoning: true,
  stops: ['[e~['],
};

export const deepseekDsml: Family = {
  name: 'deepseek-dsml',
  matches: (template) => template.includes('DSML'),
  calls: (template) => {
    const section = template.includes('function_calls') ? 'function_calls' : 'tool_calls';
    return [invokeCalls({ section, prefix: '｜DSML｜', saysString: true })];
  },
  callsEndReasoning: true,
  stops: ['<｜end▁of▁sentence｜>'],
};
