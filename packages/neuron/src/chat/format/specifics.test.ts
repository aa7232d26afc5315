import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { toCallGrammar } from './call-grammar.ts';
import { samples } from './families.test.kit.ts';
import { byCharacter, formatOf, type ParsedTurn, parse, tools } from './format.test.kit.ts';
import type { OfferedTool } from './offered-tools.ts';

const hermes = formatOf('{{ tools }}<tool_call><think></think>');
const coder = formatOf('{{ tools }}<tool_call><function=x><parameter=y><think></think>');
const harmony = formatOf('{{ tools }}<|channel|><|message|>');
const llama = formatOf('{{ tools }}<|python_tag|>');
const kimi = formatOf('{{ tools }}<|tool_call_begin|><think></think>');

function callsOf(turn: ParsedTurn): readonly (readonly [string, unknown])[] {
  return turn.calls.map(({ name, arguments: given }) => [name, JSON.parse(given)]);
}

describe('JSON calls', () => {
  const cases: readonly (readonly [string, string, readonly (readonly [string, unknown])[]])[] = [
    [
      'arguments in a string',
      '{"name": "lookup_tide", "arguments": "{\\"harbour\\": \\"K\\\\u00f6ge\\"}"}',
      [['lookup_tide', { harbour: 'Köge' }]],
    ],
    [
      'arguments before the name',
      '{"arguments": {"days": 1}, "name": "lookup_tide"}',
      [['lookup_tide', { days: 1 }]],
    ],
    [
      'a function inside',
      '{"type": "function", "function": {"name": "ring_bell", "arguments": {}}}',
      [['ring_bell', {}]],
    ],
    ['no arguments', '{"name": "ring_bell"}', [['ring_bell', {}]]],
    ['null for arguments', '{"name": "ring_bell", "arguments": null}', [['ring_bell', {}]]],
    ['an empty text for arguments', '{"name": "ring_bell", "arguments": ""}', [['ring_bell', {}]]],
    ['a namespace before the name', '{"name": "functions.ring_bell", "parameters": {}}', [['ring_bell', {}]]],
    [
      'the last brace missing',
      '{"name": "lookup_tide", "arguments": {"days": 2}',
      [['lookup_tide', { days: 2 }]],
    ],
    [
      'a raw line end and a wrong escape in a string',
      '{"name": "lookup_tide", "arguments": {"harbour": "a\nb\\d"}}',
      [['lookup_tide', { harbour: 'a\nb\\d' }]],
    ],
    [
      'an apostrophe that was escaped',
      '{"name": "lookup_tide", "arguments": {"harbour": "l\\\'Aber"}}',
      [['lookup_tide', { harbour: "l'Aber" }]],
    ],
    [
      'a list of calls',
      '[{"name": "ring_bell"}, {"name": "ring_bell"}]',
      [
        ['ring_bell', {}],
        ['ring_bell', {}],
      ],
    ],
    [
      'two objects in one block',
      '{"name": "ring_bell"}\n{"name": "ring_bell"}',
      [
        ['ring_bell', {}],
        ['ring_bell', {}],
      ],
    ],
    [
      'markers inside a string',
      '{"name": "lookup_tide", "arguments": {"harbour": "</tool_call><think>"}}',
      [['lookup_tide', { harbour: '</tool_call><think>' }]],
    ],
  ];
  for (const [what, body, expected] of cases) {
    it(`read ${what}`, () => {
      const turn = parse(hermes, `Well.\n<tool_call>\n${body}\n</tool_call>\n`, { cut: byCharacter });
      assert.deepEqual(callsOf(turn), expected);
      assert.equal(turn.content, 'Well.');
    });
  }

  it('are text, to the last blank, when they are none', () => {
    for (const body of ['{"name": 3}', 'nonsense', '{"name": "ring_bell", "city": 1}', '{"city": 1}', '']) {
      const text = ` so \n\n <tool_call>\n${body} </tool_call>\t!\n`;
      assert.deepEqual(parse(hermes, text, { cut: byCharacter }), {
        reasoning: '',
        content: text,
        calls: [],
      });
    }
  });

  it('that began are not taken back: broken arguments go on as written', () => {
    const turn = parse(
      hermes,
      '<tool_call>{"name": "lookup_tide", "arguments": {"days": 3, oops}}</tool_call>ok',
    );
    assert.equal(turn.calls[0]?.arguments, '{"days": 3, oops}}');
    assert.equal(turn.content, 'ok');
  });

  it('go on after a text that only looked like one', () => {
    const turn = parse(hermes, 'Use <tool_call> for calls: <tool_call>{"name": "ring_bell"}</tool_call>');
    assert.deepEqual(callsOf(turn), [['ring_bell', {}]]);
    assert.equal(turn.content, 'Use <tool_call> for calls:');
  });
});

describe('calls with the name between markers', () => {
  it('read arguments in a string', () => {
    const functionary = formatOf('{{ tools }}<function=x></function>');
    const text = '<function=lookup_tide>"{\\"days\\": 2}"</function><function=ring_bell>""</function>';
    assert.deepEqual(callsOf(parse(functionary, text, { cut: byCharacter })), [
      ['lookup_tide', { days: 2 }],
      ['ring_bell', {}],
    ]);
    assert.equal(parse(functionary, '<function=ring_bell>"so"</function>').calls.length, 0);
  });
});

describe('calls with tags', () => {
  const typed: OfferedTool = {
    name: 'f',
    parameters: {
      type: 'object',
      properties: {
        text: { type: 'string' },
        maybe: { type: ['string', 'null'] },
        number: { type: 'number' },
        either: { anyOf: [{ type: 'integer' }, { type: 'string' }] },
        flag: { type: 'boolean' },
        list: { type: 'array' },
        object: { $ref: '#/$defs/o' },
        level: { enum: ['1', '2'] },
        merged: { allOf: [{ $ref: '#/$defs/o' }, { description: 'x' }] },
        loop: { $ref: '#/$defs/loop' },
        shout: { type: 'STRING' },
      },
      $defs: { o: { type: 'object' }, loop: { $ref: '#/$defs/loop' } },
    },
  };
  const cases: readonly (readonly [string, string, unknown])[] = [
    ['text', '042', '042'],
    ['text', 'true', 'true'],
    ['text', 'null', 'null'],
    ['text', '{"a": 1}', '{"a": 1}'],
    ['text', '', ''],
    ['text', '"quoted"\n\ttwo lines\n', '"quoted"\n\ttwo lines\n'],
    ['text', 'a </parameter> b </function> c', 'a </parameter> b </function> c'],
    ['maybe', 'null', null],
    ['maybe', 'nullable', 'nullable'],
    ['maybe', 'a longer text than null can be', 'a longer text than null can be'],
    ['number', '-1.5e3', -1500],
    ['number', 'many', 'many'],
    ['number', '"5"', '5'],
    ['flag', 'constructor', 'constructor'],
    ['unknown', 'toString', 'toString'],
    ['either', '7', 7],
    ['either', 'seven', 'seven'],
    ['flag', 'True', true],
    ['flag', 'false', false],
    ['list', '[1, "two"]', [1, 'two']],
    ['list', "[1, 'two', None]", [1, 'two', null]],
    ['object', '{"a": {"b": []}}', { a: { b: [] } }],
    ['object', "{'a': True}", { a: true }],
    ['level', '1', '1'],
    ['merged', '{"a": 1}', { a: 1 }],
    ['loop', '3', 3],
    ['shout', '3', '3'],
    ['unknown', '3', 3],
    ['unknown', 'three', 'three'],
  ];
  for (const [key, value, expected] of cases) {
    it(`give ${key} ${JSON.stringify(value)} the type of its schema`, () => {
      const text = `<tool_call>\n<function=f>\n<parameter=${key}>\n${value}\n</parameter>\n</function>\n</tool_call>`;
      for (const cut of [undefined, byCharacter]) {
        const turn = parse(coder, text, { tools: [typed], ...(cut === undefined ? {} : { cut }) });
        assert.deepEqual(callsOf(turn), [['f', { [key]: expected }]]);
        assert.equal(turn.content, '');
      }
    });
  }

  it('go by what the format says of a value', () => {
    const dsml = formatOf('{{ tools }}DSML function_calls');
    const tag = (name: string, more: string, value: string): string =>
      `<｜DSML｜parameter name="${name}"${more}>${value}</｜DSML｜parameter>\n`;
    const text =
      '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n' +
      tag('x', ' string="true"', '5') +
      tag('y', ' string="false"', '5') +
      tag('z', ' string="false"', '"5"') +
      tag('text', '', '5') +
      '</｜DSML｜invoke>\n</｜DSML｜function_calls>';
    const turn = parse(dsml, text, { tools: [typed], cut: byCharacter });
    assert.deepEqual(callsOf(turn), [['f', { x: '5', y: 5, z: '5', text: '5' }]]);
  });

  it('stream a string while it arrives', () => {
    const text = '<tool_call>\n<function=f>\n<parameter=text>\nonce upon';
    assert.equal(parse(coder, text, { tools: [typed] }).calls[0]?.arguments, '{"text": "once upon');
  });

  it('are read without their outer tag', () => {
    const turn = parse(
      coder,
      '<function=lookup_tide>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>',
    );
    assert.deepEqual(callsOf(turn), [['lookup_tide', { days: 2 }]]);
    assert.equal(turn.content, '');
    assert.equal(parse(coder, '#include <functional>').content, '#include <functional>');
  });

  it('are read as JSON when the model falls back on it', () => {
    assert.deepEqual(callsOf(parse(coder, '<tool_call>{"name": "ring_bell"}</tool_call>')), [
      ['ring_bell', {}],
    ]);
  });
});

describe('calls in the manner of Python', () => {
  const lfm = formatOf('{{ tools }}<|tool_call_start|>');
  it('turn literals into JSON', () => {
    const text =
      '<|tool_call_start|>[lookup_tide("Kiel", 0x10, exact=True, note=None, ' +
      "marks=[1_000, -2.5, .5,], span={'from': (1, 2)}), python(code='''print(\"it's\")\n\\t1''')]<|tool_call_end|>";
    assert.deepEqual(callsOf(parse(lfm, text, { cut: byCharacter })), [
      [
        'lookup_tide',
        {
          harbour: 'Kiel',
          days: 16,
          exact: true,
          note: null,
          marks: [1000, -2.5, 0.5],
          span: { from: [1, 2] },
        },
      ],
      ['python', { code: 'print("it\'s")\n\t1' }],
    ]);
  });

  it('may be JSON between the same markers', () => {
    const text = '<|tool_call_start|>[{"name": "ring_bell", "arguments": {}}]<|tool_call_end|>';
    assert.deepEqual(callsOf(parse(lfm, text)), [['ring_bell', {}]]);
  });
});

describe('Llama', () => {
  it('calls built-in tools and runs code behind the python tag', () => {
    const builtin = parse(llama, '<|python_tag|>lookup_tide.call(harbour="Kiel")');
    assert.deepEqual(callsOf(builtin), [['lookup_tide', { harbour: 'Kiel' }]]);
    const code = parse(llama, '<|python_tag|>print("hi")\nx = {1}', { cut: byCharacter });
    assert.deepEqual(callsOf(code), [['python', { code: 'print("hi")\nx = {1}' }]]);
    const withoutPython = tools.filter(({ name }) => name !== 'python');
    const text = '<|python_tag|>print(1)';
    assert.equal(parse(llama, text, { tools: withoutPython }).content, text);
  });

  it('may answer with JSON that is no call, or write JSON after text', () => {
    for (const text of [
      '{"name": "Anna", "age": 3}',
      'See {"name": "ring_bell", "parameters": {}}',
      '[1, 2]',
    ]) {
      assert.deepEqual(parse(llama, text, { cut: byCharacter }), { reasoning: '', content: text, calls: [] });
    }
  });
});

describe('Harmony', () => {
  it('thinks, says what it will do, calls in whatever channel, and answers', () => {
    const text =
      '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>' +
      '<|start|>assistant<|channel|>analysis to=functions.ring_bell code<|message|>{}<|call|>' +
      '<|start|>assistant<|channel|>commentary<|channel|>final<|message|>Done.<|return|>';
    const turn = parse(harmony, text, { cut: byCharacter });
    assert.deepEqual(
      [turn.reasoning, turn.content, callsOf(turn)],
      ['Hm.', 'I look.Done.', [['ring_bell', {}]]],
    );
  });

  it('goes on where the prompt or a missing end leaves it', () => {
    assert.deepEqual(
      parse(harmony, 'Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes', {
        startsInReasoning: true,
      }),
      {
        reasoning: 'Hm.',
        content: 'Yes',
        calls: [],
      },
    );
    const turn = parse(
      harmony,
      '<|channel|>analysis<|message|>Hm.<|start|>assistant to=functions.ring_bell<|channel|>commentary json<|message|>{}',
    );
    assert.deepEqual([turn.reasoning, turn.content, callsOf(turn)], ['Hm.', '', [['ring_bell', {}]]]);
    assert.equal(parse(harmony, 'plain text to=you').content, 'plain text to=you');
    // A turn that the token limit ends within a header.
    const cut = '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>fin';
    assert.deepEqual(parse(harmony, cut), { reasoning: 'Hm.', content: '', calls: [] });
    for (const text of ['See <|channel|> tokens', 'See <|start|>user', 'See <|channel|>finale']) {
      assert.equal(parse(harmony, text).content, text);
    }
  });
});

describe('reasoning', () => {
  it('opens only where no text was said, or by a token', () => {
    const text = 'The tag <think> opens, </think> closes.';
    assert.deepEqual(parse(hermes, text), { reasoning: '', content: text, calls: [] });
  });

  it('is ended by a call where the family means it so, and else holds the text of calls', () => {
    const inKimi =
      'I ring.<|tool_calls_section_begin|><|tool_call_begin|>functions.ring_bell:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>';
    const turn = parse(kimi, inKimi, { startsInReasoning: true });
    assert.deepEqual([turn.reasoning, turn.content, callsOf(turn)], ['I ring.', '', [['ring_bell', {}]]]);
    const xml = '<tool_call>\n<function=ring_bell>\n</function>\n</tool_call>';
    assert.equal(parse(coder, `I ring.${xml}`, { startsInReasoning: true }).calls.length, 1);
    assert.equal(parse(hermes, `I ring.${xml}`, { startsInReasoning: true }).calls.length, 0);
    const inHermes = 'I could say <tool_call>{"name": "ring_bell"}</tool_call> now.</think>No.';
    assert.deepEqual(parse(hermes, inHermes, { startsInReasoning: true }), {
      reasoning: 'I could say <tool_call>{"name": "ring_bell"}</tool_call> now.',
      content: 'No.',
      calls: [],
    });
  });

  it('may be opened twice, be empty, and come again after a call', () => {
    assert.equal(parse(hermes, '<think>\nHm.</think>Yes', { startsInReasoning: true }).reasoning, 'Hm.');
    assert.deepEqual(parse(hermes, '<think>\n\n</think>\n\nYes'), {
      reasoning: '',
      content: 'Yes',
      calls: [],
    });
    const again = parse(
      hermes,
      '<think>a</think><tool_call>{"name": "ring_bell"}</tool_call>\n<think>b</think>c',
    );
    assert.deepEqual([again.reasoning, again.content, again.calls.length], ['ab', 'c', 1]);
  });
});

describe('text about markup', () => {
  it('is not cut at a tag that HTML has too, which is also the end of sequence of some models', () => {
    for (const { family, template } of samples) {
      assert.ok(!formatOf(template).stops.some((stop) => /^<\/?[a-z]{1,3}>$/.test(stop)), family);
    }
  });

  it('keeps <response>, which frames an answer only between reasoning and the end of the turn', () => {
    const granite = formatOf(samples.find(({ family }) => family === 'granite')?.template ?? '');
    const about = 'Write <response>\n<b>ok</b>\n</response>';
    for (const cut of [undefined, byCharacter]) {
      const options = cut === undefined ? {} : { cut };
      assert.equal(parse(granite, about, options).content, about);
      assert.equal(parse(granite, `<think>x</think>\n${about} there.`, options).content, `${about} there.`);
      const framed = `<think>x</think>\n\n<response>${about} and so on.\n</response>\n`;
      assert.equal(parse(granite, framed, options).content, `${about} and so on.`);
      const unclosed = '<think>x</think><response>Tell </response> me';
      assert.equal(parse(granite, unclosed, options).content, 'Tell </response> me');
    }
  });

  it('wakes no grammar at an English word', () => {
    const commandR = formatOf(samples.find(({ family }) => family === 'command-r')?.template ?? '');
    const auto = toCallGrammar(commandR, tools, { choice: 'auto', parallel: true });
    const wakes = (text: string) => auto?.lazy?.triggers.some((trigger) => text.includes(trigger));
    assert.equal(wakes('Action: call the harbour master.'), false);
    assert.equal(wakes('Action:\n```json\n['), true);
  });
});

describe('detectFormat()', () => {
  it('asks the template for tools first, and the architecture last', () => {
    assert.equal(formatOf('hello', 'gpt-oss').name, 'harmony');
    assert.equal(formatOf('hello', 'constructor').name, 'generic');
  });

  it('has words for the tools only where the template has none', () => {
    assert.equal(hermes.describeTools, null);
    const told = formatOf('{{ messages }}');
    assert.match(told.describeTools?.([{ name: 'ring_bell' }]) ?? '', /ring_bell[\s\S]*<tool_call>/);
    const deepseek = formatOf('{{ messages }}<｜tool▁calls▁begin｜>');
    assert.match(deepseek.describeTools?.([{ name: 'ring_bell' }]) ?? '', /ring_bell[\s\S]*<｜tool▁sep｜>/);
  });
});
