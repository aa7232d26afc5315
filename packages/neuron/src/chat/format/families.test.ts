import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { samples } from './families.test.kit.ts';
import { byCharacter, formatOf, mergeEvents, parse, parseEvents } from './format.test.kit.ts';
import { startsInReasoning } from './read-turn.ts';

const tide = { harbour: 'Kiel', days: 3 };

for (const sample of samples) {
  const format = formatOf(sample.template);
  const { family } = sample;
  describe(family, () => {
    it(`${family}: call`, () => {
      assert.equal(format.name, family);
      const turn = parse(format, sample.call);
      assert.equal(turn.content, '');
      assert.deepEqual(
        turn.calls.map(({ name, isEnded }) => [name, isEnded]),
        [['lookup_tide', true]],
      );
      assert.deepEqual(JSON.parse(turn.calls[0]!.arguments), tide);
      if (sample.ids !== undefined) assert.equal(turn.calls[0]!.id, sample.ids[0]);
      // What only looks like a call is text, to the last character; so is a real one when nothing is offered.
      assert.deepEqual(parse(format, sample.lookalike), {
        reasoning: '',
        content: sample.lookalike,
        calls: [],
      });
      if (format.readTurn === null)
        assert.equal(parse(format, sample.call, { tools: [] }).content, sample.call);
    });

    it(`${family}: parallel calls`, () => {
      const turn = parse(format, sample.parallel);
      assert.equal(turn.content, '');
      assert.deepEqual(
        turn.calls.map(({ name, arguments: given }) => [name, JSON.parse(given)]),
        [
          ['lookup_tide', tide],
          ['ring_bell', {}],
        ],
      );
      assert.equal(new Set(turn.calls.map(({ id }) => id)).size, 2);
      assert.equal(parse(format, sample.parallel, { parallel: false }).calls.length, 1);
    });

    it(`${family}: stream`, () => {
      for (const text of [sample.call, sample.parallel, sample.reasoning, sample.lookalike]) {
        const { startsInReasoning: inside = false } = sample;
        const options = { startsInReasoning: text === sample.reasoning && inside };
        const whole = mergeEvents(parseEvents(format, text, options));
        assert.deepEqual(mergeEvents(parseEvents(format, text, { ...options, cut: byCharacter })), whole);
      }
      // The name is out before the arguments are whole, and what came of them is a prefix.
      const cut = sample.call.indexOf('iel');
      const early = parse(format, sample.call.slice(0, cut));
      assert.deepEqual(
        early.calls.map(({ name }) => name),
        ['lookup_tide'],
      );
      const given = parse(format, sample.call).calls[0]!.arguments;
      assert.equal(early.calls[0]!.arguments, given.slice(0, given.indexOf('iel')));
    });

    it(`${family}: reasoning`, () => {
      if (sample.openPrompt !== undefined) {
        assert.equal(startsInReasoning(format, sample.openPrompt), true);
        assert.equal(startsInReasoning(format, `${sample.openPrompt}x</think>`), false);
      }
      if (sample.reasoning === '') return;
      const inside = sample.startsInReasoning ?? false;
      assert.deepEqual(parse(format, sample.reasoning, { startsInReasoning: inside }), {
        reasoning: 'It floods.',
        content: 'Mind the gap.',
        calls: [],
      });
      // An unfinished block is reasoning.
      const cut = sample.reasoning.indexOf('oods');
      const early = parse(format, sample.reasoning.slice(0, cut), { startsInReasoning: inside });
      assert.deepEqual(early, { reasoning: 'It fl', content: '', calls: [] });
      // Thoughts, then a call.
      const thought = sample.reasoning.slice(0, sample.reasoning.indexOf('Mind'));
      if (family === 'harmony') return;
      const both = parse(format, thought + sample.call, { startsInReasoning: inside });
      assert.deepEqual([both.reasoning, both.content, both.calls.length], ['It floods.', '', 1]);
    });
  });
}
