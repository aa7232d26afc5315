/** Random schemas, each with a maker of values that satisfy it. Not part of the product. */

export type Random = () => number;

export interface SchemaCase {
  readonly schema: unknown;
  /** A value that satisfies the schema, with its keys in the schema's order. */
  readonly make: () => unknown;
}

/** mulberry32 */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const formats: readonly (readonly [string, readonly string[]])[] = [
  ['date', ['2024-02-29', '1999-12-31', '2000-02-29']],
  ['time', ['23:59:59Z', '00:00:00.5+01:30']],
  ['date-time', ['2025-11-25T10:00:00Z', '2024-02-29T23:59:59.123456-11:00']],
  ['duration', ['P3D', 'PT4H30M', 'P1Y2M10DT2H30M', 'P2W']],
  ['email', ['a@b.org', 'first.last+tag@mail.example.com']],
  ['hostname', ['localhost', 'a-b.example.org']],
  ['ipv4', ['0.0.0.0', '255.249.10.1']],
  ['ipv6', ['::', '::1', 'fe80::1', '1:2:3:4:5:6:7:8', '2001:db8::ff00:42:8329', '1:2:3:4:5:6:7::']],
  ['uri', ['https://example.org', 'http://a.b:8080/x/y?q=1#top', 'ftp://files.example.com/a%20b']],
  ['uuid', ['123e4567-e89b-12d3-a456-426614174000']],
  ['json-pointer', ['', '/a/b~1c', '/0']],
];

const patterns: readonly (readonly [string, readonly string[]])[] = [
  ['^[a-z]+$', ['abc', 'z']],
  ['^\\d{3}-\\d{2,4}$', ['123-45', '000-9999']],
  ['b{2}', ['bb', 'xbby']],
  ['^(foo|bar)?baz', ['baz', 'foobaz and more']],
  ['[^"\\\\]$', ['a', 'quote " inside a']],
  ['^["\\\\\\n]*$', ['', '"\\\n']],
  ['^\\p', ['p!']],
  ['^(a|b(c|d)*)+$', ['abcdcda', 'b']],
  ['^.{2,4}$', ['ab', 'äöü😀']],
  ['^[\\w.-]{1,5}@$', ['a.b-_@']],
  ['^$', ['']],
  ['^a$|^b$', ['a', 'b']],
  ['^(?!\\.)(?!.*\\.\\.)[a-z.]+$', ['a.b', 'abc.']],
  ['^(?=.{2,5}$)(?=.*[0-9])\\w*$', ['a1', '12345']],
].filter(([pattern]) => pattern !== '^\\p') as unknown as readonly (readonly [string, readonly string[]])[];

/** Several conditions on one text, as schema libraries write them. */
const joinedStrings: readonly SchemaCase[] = [
  {
    schema: {
      type: 'string',
      format: 'email',
      pattern:
        "^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$",
    },
    make: () => "o'neil+tag@mail.example.org",
  },
  {
    schema: {
      type: 'string',
      format: 'uuid',
      pattern: '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
    },
    make: () => '123e4567-e89b-42d3-a456-426614174000',
  },
  {
    schema: {
      type: 'string',
      allOf: [{ pattern: '^ab.*' }, { pattern: '.*z$' }, { pattern: 'q' }],
      maxLength: 9,
    },
    make: () => 'ab"q"z',
  },
  { schema: { type: 'string', pattern: '(ab|c)+', minLength: 3, maxLength: 6 }, make: () => 'xcabé' },
];

const texts = ['', 'a', 'hello world', 'say "hi"\n', 'back\\slash', 'ünïcödé 😀', '\u0001\u001f', '/slash/'];

export function randomSchema(random: Random, depth = 3): SchemaCase {
  const below = (count: number): number => Math.floor(random() * count);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const leaf = [stringCase, integerCase, numberCase, plainCase, enumCase];
  const inner = [
    objectCase,
    arrayCase,
    tupleCase,
    mapCase,
    anyOfCase,
    allOfCase,
    nullableCase,
    recursiveCase,
  ];
  const kind = depth > 0 && random() < 0.6 ? pick(inner) : pick(leaf);
  return kind();

  function stringCase(): SchemaCase {
    const way = below(6);
    if (way === 5) return pick(joinedStrings);
    if (way === 0) {
      const [format, samples] = pick(formats);
      return { schema: { type: 'string', format }, make: () => pick(samples) };
    }
    if (way === 1) {
      const [pattern, samples] = pick(patterns);
      return { schema: { type: 'string', pattern }, make: () => pick(samples) };
    }
    if (way === 2) return { schema: { type: 'string' }, make: () => pick(texts) };
    const min = below(4);
    const max = min + below(5);
    const make = (): string =>
      Array.from({ length: min + below(max - min + 1) }, () => pick(['a', '"', '\\', 'é', '😀', '\n'])).join(
        '',
      );
    return { schema: { type: 'string', minLength: min, maxLength: max }, make };
  }

  function integerCase(): SchemaCase {
    const way = below(5);
    if (way === 0) return { schema: { type: 'integer' }, make: () => below(2000) - 1000 };
    if (way === 1) {
      const step = pick([2, 3, 7, 10, 25, 100]);
      return { schema: { type: 'integer', multipleOf: step }, make: () => (below(2000) - 1000) * step + 0 };
    }
    const min = below(3000) - 1500;
    const max = min + below(pick([1, 20, 5000]));
    const make = (): number => min + below(max - min + 1);
    if (way === 2) return { schema: { type: 'integer', exclusiveMinimum: min - 1, maximum: max }, make };
    if (way === 3) return { schema: { type: 'integer', minimum: min }, make };
    return { schema: { type: 'integer', maximum: max, minimum: min - 0.5 }, make };
  }

  function numberCase(): SchemaCase {
    const way = below(4);
    if (way === 0) return { schema: { type: 'number' }, make: () => (below(2e6) - 1e6) / 1000 };
    if (way === 1) {
      return {
        schema: { type: 'number', multipleOf: 0.01 },
        make: () => Number((below(5000) / 100).toFixed(2)),
      };
    }
    const min = (below(4000) - 2000) / pick([1, 10, 1000]);
    const max = min + below(3000) / 1000;
    const make = (): number =>
      Math.min(max, Math.max(min, Number((min + random() * (max - min)).toFixed(4))));
    if (way === 2) return { schema: { type: 'number', minimum: min, maximum: max }, make };
    return { schema: { type: 'number', exclusiveMinimum: min - 0.001, exclusiveMaximum: max + 0.001 }, make };
  }

  function plainCase(): SchemaCase {
    return pick<SchemaCase>([
      { schema: { type: 'boolean' }, make: () => random() < 0.5 },
      { schema: { type: 'null' }, make: () => null },
      { schema: { const: { a: [1, null, 'x"y'] } }, make: () => ({ a: [1, null, 'x"y'] }) },
    ]);
  }

  function enumCase(): SchemaCase {
    const values = ['red', 'green', 'a "quoted" one', 7, -0.5, null, true, [1, 2], { k: 'v' }];
    const kept = values.slice(below(4), 5 + below(4));
    return { schema: { enum: kept }, make: () => pick(kept) };
  }

  function objectCase(): SchemaCase {
    const names = ['a', 'b c', 'ключ', 'with "quote"', 'ab'].slice(0, 1 + below(5));
    const members = names.map((name) => ({
      name,
      isRequired: random() < 0.5,
      of: randomSchema(random, depth - 1),
    }));
    const rest = pick([undefined, false, true, { type: 'integer' }]);
    const schema = {
      type: 'object',
      properties: Object.fromEntries(members.map(({ name, of }) => [name, of.schema])),
      required: members.filter((member) => member.isRequired).map(({ name }) => name),
      ...(rest === undefined ? {} : { additionalProperties: rest }),
    };
    const make = (): unknown => {
      const kept = members.filter((member) => member.isRequired || random() < 0.5);
      const value = Object.fromEntries(kept.map(({ name, of }) => [name, of.make()]));
      const isOpen = rest !== undefined && rest !== false && random() < 0.5;
      return isOpen ? { ...value, abc: below(9), z: 1, 'b "d': 0 } : value;
    };
    return { schema, make };
  }

  function mapCase(): SchemaCase {
    const of = randomSchema(random, depth - 1);
    const byPattern = random() < 0.5;
    const schema = byPattern
      ? {
          type: 'object',
          patternProperties: { '^k\\d$': of.schema },
          additionalProperties: false,
          maxProperties: 4,
        }
      : { type: 'object', additionalProperties: of.schema, minProperties: 1 };
    const make = (): unknown =>
      Object.fromEntries(Array.from({ length: 1 + below(3) }, (_, index) => [`k${index}`, of.make()]));
    return { schema, make };
  }

  function arrayCase(): SchemaCase {
    const of = randomSchema(random, depth - 1);
    const min = below(3);
    const max = random() < 0.3 ? undefined : min + below(4);
    const schema = {
      type: 'array',
      items: of.schema,
      minItems: min,
      ...(max === undefined ? {} : { maxItems: max }),
    };
    return { schema, make: () => Array.from({ length: min + below((max ?? min + 3) - min + 1) }, of.make) };
  }

  function tupleCase(): SchemaCase {
    const parts = [randomSchema(random, depth - 1), randomSchema(random, depth - 1)];
    const rest = random() < 0.5 ? { type: 'null' } : false;
    const min = below(3);
    const schema = {
      type: 'array',
      prefixItems: parts.map((part) => part.schema),
      items: rest,
      minItems: min,
    };
    const make = (): unknown => {
      const value = parts.slice(0, Math.max(min, below(3))).map((part) => part.make());
      return value.length === 2 && rest !== false && random() < 0.5 ? [...value, null, null] : value;
    };
    return { schema, make };
  }

  function anyOfCase(): SchemaCase {
    const ways = Array.from({ length: 2 + below(2) }, () => randomSchema(random, depth - 1));
    return { schema: { anyOf: ways.map((way) => way.schema) }, make: () => pick(ways).make() };
  }

  function allOfCase(): SchemaCase {
    const min = below(50);
    return {
      schema: {
        allOf: [
          { type: 'object', properties: { n: { type: 'integer', minimum: min } }, required: ['n'] },
          { properties: { n: { type: 'number', maximum: min + 9 }, t: { type: 'string', maxLength: 3 } } },
        ],
      },
      make: () => ({ n: min + below(10), ...(random() < 0.5 ? { t: 'x"' } : {}) }),
    };
  }

  function nullableCase(): SchemaCase {
    return {
      schema: { type: ['string', 'integer', 'null'], maxLength: 5, minimum: 0 },
      make: () => pick<unknown>(['abc', 12, null]),
    };
  }

  function recursiveCase(): SchemaCase {
    const name = `node${below(1e9)}`;
    const node = {
      type: 'object',
      properties: { v: { type: 'integer' }, kids: { type: 'array', items: { $ref: `#/$defs/${name}` } } },
      required: ['v'],
      additionalProperties: false,
    };
    const make = (left: number): unknown =>
      left === 0 || random() < 0.4 ? { v: left } : { v: left, kids: [make(left - 1), make(left - 1)] };
    return { schema: { $ref: `#/$defs/${name}`, $defs: { [name]: node } }, make: () => make(3) };
  }
}

/** Moves every `$defs` to the top, where references look for them. */
export function liftDefs(schema: unknown): unknown {
  const defs: Record<string, unknown> = {};
  const lift = (part: unknown): unknown => {
    if (typeof part !== 'object' || part === null) return part;
    if (Array.isArray(part)) return part.map(lift);
    const { $defs, ...rest } = part as Record<string, unknown>;
    Object.assign(defs, $defs);
    return Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, lift(value)]));
  };
  const lifted = lift(schema) as Record<string, unknown>;
  return { ...lifted, $defs: defs };
}
