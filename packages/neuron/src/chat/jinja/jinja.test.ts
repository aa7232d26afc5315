import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readFixture } from '../conversations.test.kit.ts';
import { JinjaTemplate } from './jinja.ts';
import { JinjaError } from './syntax.ts';

const now = () => new Date(Date.UTC(2026, 10, 25, 9, 5, 7));
const { variables } = JSON.parse(readFixture('cases.json')) as { variables: Record<string, unknown> };
const { language } = JSON.parse(readFixture('recordings.json')) as {
  language: { template: string; text?: string; error?: string }[];
};

function fault(source: string, given: Record<string, unknown> = {}): JinjaError {
  try {
    new JinjaTemplate(source).render(given, now);
  } catch (thrown) {
    assert.ok(thrown instanceof JinjaError, String(thrown));
    return thrown;
  }
  throw new assert.AssertionError({ message: 'it rendered' });
}

describe('JinjaTemplate', () => {
  it('renders what Python renders, and refuses what Python refuses', () => {
    const differing = [];
    for (const { template, text, error } of language) {
      let got: string | null = null;
      try {
        got = new JinjaTemplate(template).render(structuredClone(variables), now);
      } catch (thrown) {
        assert.ok(thrown instanceof JinjaError);
      }
      if (got !== (text ?? null)) differing.push({ template, expected: text ?? error, got });
    }
    assert.deepEqual(differing, []);
  });

  it('says on which line it failed, and what', () => {
    const template = 'a\n{% for x in [1] %}\n  {{ raise_exception("roles must alternate") }}\n{% endfor %}';
    assert.equal(fault(template).line, 3);
    assert.equal(fault(template).message, 'roles must alternate');
    assert.equal(fault('\n\n{{ a.b.c }}', { a: {} }).line, 3);
    assert.match(fault('{{ a.b.c }}', { a: {} }).message, /"a.b" is undefined/);
    assert.match(fault('{{ f(1) }}').message, /"f" is undefined/);
    assert.equal(fault('{%- macro m() %}\n{{ 1 + none }}\n{%- endmacro %}\n{{ m() }}').line, 2);
  });

  it('says on which line it cannot be read', () => {
    for (const [source, line, message] of [
      ['x\n{% if a %}', 2, /"if" is not closed/],
      ['{{ a', 1, /not closed with }}/],
      ['\n{% endif %}', 2, /"endif" is not known/],
      ['{{ a b }}', 1, /expected the end of the tag, found "b"/],
      ['{% include "x" %}', 1, /"include" is not known/],
      ['{{ 1 ? 2 }}', 1, /unexpected character "\?"/],
      [`{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`, 1, /nested too deeply/],
    ] as const) {
      assert.equal(fault(source).line, line, source);
      assert.match(fault(source).message, message);
    }
  });

  it('ends what would not end, and keeps to its memory', () => {
    assert.match(fault('{% macro r() %}{{ r() }}{% endmacro %}{{ r() }}').message, /too deeply/);
    assert.match(fault('{{ range(1000000000) }}').message, /longer than 100000/);
    assert.match(fault('{{ [1] * 100000000 }}').message, /too long/);
    assert.match(fault('{{ "x" * 10000000000 }}').message, /too long/);
    const loops = '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}';
    assert.match(fault(loops).message, /turns without an end/);
    const doubling =
      '{% set n = namespace(s="x") %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}';
    assert.match(fault(doubling).message, /text grows too long/);
    assert.match(
      fault('{% for a in range(99999) %}{{ "x" * 9999 }}{% endfor %}').message,
      /text grows too long/,
    );
  });

  it('reaches nothing but its own data', () => {
    const render = (source: string) => new JinjaTemplate(source).render({ d: { a: 1 }, l: [1], s: 'x' }, now);
    for (const path of [
      'd.constructor',
      'd.__proto__',
      's.constructor',
      'l.constructor',
      "d['constructor']",
    ]) {
      assert.equal(render(`{{ ${path} is defined }}`), 'False', path);
    }
    assert.equal(render('{{ d.get("constructor") }}{{ "__proto__" in d }}'), 'NoneFalse');
    assert.equal(
      render('{% set e = {} %}{{ e.update({"__proto__": {"x": 1}}) }}{{ d.x is defined }}'),
      'NoneFalse',
    );
  });

  it('never throws anything but a JinjaError on broken sources', () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * below);
    };
    const source = readFixture('templates/qwen3.jinja');
    for (let round = 0; round < 300; round++) {
      const from = random(source.length);
      const broken = source.slice(0, from) + source.slice(from + random(40));
      try {
        new JinjaTemplate(broken).render({ messages: [{ role: 'user', content: 'x' }], tools: null }, now);
      } catch (thrown) {
        assert.ok(thrown instanceof JinjaError, `SEED=${seed} round ${round}: ${thrown}`);
      }
    }
  });
});
