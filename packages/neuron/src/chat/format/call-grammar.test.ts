import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { AppError } from 'cortex-core/wire/errors';
import { ask, tinySpec } from '../../engine/engine.test.kit.ts';
import { Engine } from '../../engine/engine.ts';
import { loadLibrary } from '../../libllama/load-library.ts';
import { type CallGrammarOptions, toCallGrammar } from './call-grammar.ts';
import type { GrammarPart } from './chat-format.ts';
import { samples } from './families.test.kit.ts';
import { collect, formatOf, parseEvents } from './format.test.kit.ts';
import type { OfferedTool } from './offered-tools.ts';

const engine = new Engine({ library: loadLibrary({ nativeLog: false }) });
const model = engine.load(tinySpec());
after(() => engine.close());

/** Short by their schemas, so that a small model that may say anything comes to an end. */
const tools: readonly OfferedTool[] = [
  {
    name: 'lookup_tide',
    parameters: {
      type: 'object',
      properties: {
        harbour: { enum: ['Kiel', 'Brest "Port"', 'Ålesund'] },
        days: { type: 'integer', minimum: 1, maximum: 9 },
        exact: { type: 'boolean' },
        marks: { type: 'array', items: { $ref: '#/$defs/mark' }, maxItems: 2 },
      },
      required: ['harbour', 'days'],
      additionalProperties: false,
      $defs: { mark: { type: 'number', enum: [1, 2.5] } },
    },
  },
  { name: 'ring_bell', parameters: { type: 'object', properties: {}, additionalProperties: false } },
];

function checkArguments(name: string, text: string, where: string): void {
  const given = JSON.parse(text) as Record<string, unknown>;
  const { harbour, days, exact = true, marks = [], ...others } = given;
  assert.deepEqual(others, {}, where);
  if (name === 'ring_bell') {
    assert.deepEqual(given, {}, where);
    return;
  }
  assert.ok(['Kiel', 'Brest "Port"', 'Ålesund'].includes(harbour as string), where);
  assert.ok(Number.isInteger(days) && typeof exact === 'boolean', where);
  // Gemma's lists may hold anything.
  assert.ok(Array.isArray(marks), where);
}

/** The model knows none of the formats: that it writes them is the grammar's doing. */
function draw(template: string, options: CallGrammarOptions, seed: number) {
  const format = formatOf(template);
  const grammar = toCallGrammar(format, tools, options);
  assert.ok(grammar !== null);
  const { lazy: _, ...whole } = grammar;
  const heard = ask(model, 'Look up the tide, then ring the bell.', {
    grammar: whole,
    maxTokens: 400,
    sampling: { temperature: 1.5, seed },
  });
  assert.equal(heard.error, null, format.name);
  const parallel = options.parallel;
  return { heard, turn: collect(parseEvents(format, heard.text, { tools, parallel })) };
}

for (const { family, template } of samples) {
  describe(family, () => {
    it(`${family}: forced call`, () => {
      for (const seed of [1, 2, 3]) {
        const { heard, turn } = draw(template, { choice: 'required', parallel: false }, seed);
        const where = `${family}, seed ${seed}: ${heard.text}`;
        if (heard.result?.finishReason === 'length') continue;
        assert.deepEqual([turn.content, turn.reasoning, turn.calls.length], ['', '', 1], where);
        const [{ name, arguments: given }] = turn.calls as [(typeof turn.calls)[0]];
        checkArguments(name, given, where);
      }
      const named = draw(template, { choice: { name: 'ring_bell' }, parallel: false }, 1);
      assert.deepEqual(
        named.turn.calls.map(({ name, arguments: given }) => [name, JSON.parse(given)]),
        [['ring_bell', {}]],
        named.heard.text,
      );
      const many = draw(template, { choice: 'required', parallel: true }, 2);
      const isWhole = many.heard.result?.finishReason === 'stop';
      if (isWhole) assert.equal(many.turn.content, '', many.heard.text);
      for (const { name, arguments: given, isEnded } of many.turn.calls.slice(0, isWhole ? undefined : -1)) {
        assert.equal(isEnded, true);
        checkArguments(name, given, many.heard.text);
      }
      // For auto the grammar wakes where these calls begin, or, when that is plain text, there is none.
      const auto = toCallGrammar(formatOf(template), tools, { choice: 'auto', parallel: true });
      const wakes = auto?.lazy?.triggers.some((trigger) => named.heard.text.includes(trigger));
      assert.ok(auto === null || wakes, named.heard.text);
    });
  });
}

describe('toCallGrammar()', () => {
  const format = formatOf('{{ tools }}<tool_call>');

  it('refuses a tool that was not offered, and a call without tools', () => {
    for (const [given, choice] of [
      [tools, { name: 'sell_boat' }],
      [[], 'required'],
    ] as const) {
      assert.throws(
        () => toCallGrammar(format, given, { choice, parallel: true }),
        (error: AppError) => error instanceof AppError && error.param === 'tool_choice',
      );
    }
  });

  it('refuses what a strict tool asks for in vain, by keyword, and widens it for others', () => {
    const parameters = { type: 'object', properties: { x: { not: { type: 'string' } } } };
    const tool = { name: 'f', parameters };
    assert.ok(toCallGrammar(format, [tool], { choice: 'required', parallel: false }));
    assert.throws(
      () => toCallGrammar(format, [{ ...tool, strict: true }], { choice: 'auto', parallel: false }),
      (error: AppError) => error.param === 'tools.0.function.parameters.properties.x.not',
    );
  });

  it('lets parameters through that only a reference, a choice or free keys allow, in every markup', () => {
    const place = { type: 'object', properties: { harbour: { enum: ['Kiel'] } }, required: ['harbour'] };
    const whole = { $ref: '#/$defs/place', $defs: { place } };
    const roots: readonly (readonly [string, Record<string, unknown>])[] = [
      ['$ref', whole],
      ['allOf', { allOf: [place, { type: 'object', properties: {} }] }],
      [
        'anyOf',
        { anyOf: [{ $ref: '#/$defs/place' }, { ...place, required: ['harbour'] }], $defs: { place } },
      ],
      ['oneOf', { oneOf: [place] }],
    ];
    for (const [name, parameters] of roots) {
      for (const { family, template } of samples) {
        const { gbnf } = required(template, { name: 'look', parameters });
        assert.match(gbnf, /harbour/, `${family} ${name}`);
        assert.match(gbnf, /Kiel/, `${family} ${name}`);
      }
    }
    const free = [{ type: 'object', additionalProperties: true }, { patternProperties: { '^x': {} } }];
    for (const parameters of [...free, { type: 'object' }]) {
      for (const { family, template } of samples) {
        const tool = { name: 'look', parameters };
        const isMarked = formatOf(template).calls[0]?.grammar.call(tool).some(isParameters);
        if (!isMarked) continue;
        assert.match(required(template, tool).gbnf, /\[a-zA-Z0-9_\.-\]\{0,63\}/, family);
        const options = { choice: 'auto', parallel: true } as const;
        assert.equal(toCallGrammar(formatOf(template), [tool], options), null, family);
      }
    }
  });

  it('has a model write free parameters that are read as such', () => {
    const free = [
      { name: 'note', parameters: { type: 'object', additionalProperties: { enum: ['a', 'b'] } } },
    ];
    for (const template of samples.map((sample) => sample.template)) {
      const format = formatOf(template);
      const grammar = toCallGrammar(format, free, { choice: 'required', parallel: false });
      const sampling = { temperature: 1.5, seed: 1 };
      const heard = ask(model, 'Note it.', { grammar, maxTokens: 400, sampling });
      assert.equal(heard.error, null, format.name);
      if (heard.result?.finishReason === 'length') continue;
      const { calls } = collect(parseEvents(format, heard.text, { tools: free }));
      assert.equal(calls.length, 1, heard.text);
      const values = Object.values(JSON.parse(calls[0]?.arguments ?? '') as object);
      assert.ok(
        values.every((value) => value === 'a' || value === 'b'),
        heard.text,
      );
    }
  });

  it('takes a schema that cannot be read for a hint, and names the tool when it was a promise', () => {
    const broken: readonly Record<string, unknown>[] = [
      { type: 'object', properties: { x: { $ref: 'https://example.com/x.json' } } },
      { type: 'object', properties: { x: { type: 'float' } } },
      { type: 'object', properties: { x: { type: 'integer', enum: ['one'] } } },
      { type: 'object', properties: { x: { type: 'string' } }, required: true },
      {
        type: 'object',
        properties: { x: { enum: Array.from({ length: 60_000 }, (_, each) => `x${each}`) } },
      },
    ];
    for (const parameters of broken) {
      for (const { family, template } of samples) {
        const format = formatOf(template);
        const given = [...tools, { name: 'sloppy', parameters }];
        const forced = toCallGrammar(format, given, { choice: 'required', parallel: false });
        assert.match(forced?.gbnf ?? '', /harbour/, `${family}: the other tools keep theirs`);
        assert.match(forced?.gbnf ?? '', /sloppy/, family);
        toCallGrammar(format, given, { choice: 'auto', parallel: false });
      }
      assert.throws(
        () =>
          toCallGrammar(format, [...tools, { name: 'sloppy', parameters, strict: true }], {
            choice: 'required',
            parallel: false,
          }),
        (error: AppError) => error.param?.startsWith('tools.2.function.parameters') ?? false,
      );
    }
  });

  it('refuses a strict tool by name where the format cannot hold it', () => {
    const llama = samples.find(({ family }) => family === 'llama3')?.template ?? '';
    const coder = samples.find(({ family }) => family === 'qwen-coder')?.template ?? '';
    const gemma = samples.find(({ family }) => family === 'gemma4')?.template ?? '';
    const closed = (x: unknown) => ({
      type: 'object',
      properties: { x },
      required: ['x'],
      additionalProperties: false,
    });
    const plain = closed({ type: 'string' });
    const short = closed({ type: 'string', maxLength: 3 });
    const list = closed({ type: 'array', items: { type: 'integer' } });
    const optional = closed({ anyOf: [{ enum: ['a', 'b'] }, { type: 'null' }] });
    const place = 'function.parameters';
    const cases: readonly (readonly [string, CallGrammarOptions['choice'], unknown, string | null])[] = [
      [llama, 'auto', plain, 'function.strict'],
      [llama, 'required', short, null],
      [coder, 'auto', plain, null],
      [coder, 'auto', optional, null],
      [coder, 'auto', list, null],
      [coder, 'auto', short, `${place}.properties.x.maxLength`],
      [coder, 'required', { type: 'object' }, `${place}.additionalProperties`],
      [gemma, 'auto', plain, null],
      [gemma, 'auto', closed({ type: 'integer', minimum: 3 }), null],
      [gemma, 'auto', list, `${place}.properties.x.items`],
    ];
    for (const [template, choice, parameters, param] of cases) {
      const tool = { name: 'f', parameters: parameters as OfferedTool['parameters'], strict: true };
      const compile = () => toCallGrammar(formatOf(template), [tool], { choice, parallel: false });
      if (param === null) assert.ok(compile() !== null, JSON.stringify(parameters));
      else assert.throws(compile, (error: AppError) => error.param === `tools.0.${param}`, param);
    }
  });
});

function isParameters({ kind }: GrammarPart): boolean {
  return kind === 'parameters';
}

function required(template: string, tool: OfferedTool) {
  const grammar = toCallGrammar(formatOf(template), [tool], { choice: 'required', parallel: false });
  assert.ok(grammar !== null);
  return grammar;
}
