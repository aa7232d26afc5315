/** What no job may do to an owner, of either kind: every refusal names its field, and the owner lives on. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { AppError } from 'cortex-core/wire/errors';
import type { GenerateParams, LoadSpec, ModelFacts, SamplingParams } from 'cortex-core/wire/inference';
import { createDevice } from './create-devices.ts';
import { loadSpec } from './fake-engine.test.kit.ts';
import type { OwnerDevice } from './owner-device.ts';

const context = 128;
const tiny: LoadSpec = {
  ...loadSpec,
  modelId: 'cortex-tiny',
  file: fileURLToPath(new URL('../../../../models/cortex-tiny/cortex-tiny.gguf', import.meta.url)),
  context,
  threads: 1,
};
const ignore = (): void => {};

type Over = Partial<Omit<GenerateParams, 'sampling'>> & {
  readonly sampling?: Readonly<Record<string, unknown>>;
};

function paramsOf(over: Over): GenerateParams {
  const rest = { maxTokens: 4, stops: [], grammar: null, topLogprobs: null, ignoreEos: false };
  const sampling = { temperature: 0, ...over.sampling } as SamplingParams;
  return { tokens: Int32Array.of(300, 301, 302), ...rest, ...over, sampling };
}

/** Values that are no number at all, and those next to each field's range. */
const noNumbers = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, '1', true, [], {}, 1n];
const outOfRange: Readonly<Record<string, readonly [keyof SamplingParams, readonly number[]]>> = {
  temperature: ['temperature', [-1e-9, 101, 1e300]],
  top_k: ['topK', [-2, 1.5, 2 ** 31, 1e300]],
  top_p: ['topP', [-0.1, 1.1]],
  min_p: ['minP', [-0.1, 1.1]],
  typical_p: ['typicalP', [-0.1, 1.1]],
  top_n_sigma: ['topNSigma', [-1.1, 101]],
  xtc_probability: ['xtcProbability', [-0.1, 1.1]],
  xtc_threshold: ['xtcThreshold', [-0.1, 1.1]],
  repeat_penalty: ['repeatPenalty', [0, -1, 101]],
  repeat_last_n: ['repeatLastN', [-2, 0.5, 2 ** 31]],
  frequency_penalty: ['frequencyPenalty', [-101, 101]],
  presence_penalty: ['presencePenalty', [-101, 101]],
  dry_multiplier: ['dryMultiplier', [-0.1, 101]],
  dry_base: ['dryBase', [0.9, 101]],
  dry_allowed_length: ['dryAllowedLength', [-1, 0.5, 2 ** 31]],
  dry_penalty_last_n: ['dryPenaltyLastN', [-2, 0.5, 2 ** 31]],
  seed: ['seed', [0.5, 2 ** 53, 1e300]],
};

function badRequests({ vocabSize }: ModelFacts): [string, string, Over][] {
  const bias = (token: unknown, value: unknown): Over => ({
    sampling: { logitBias: [{ token, bias: value }] },
  });
  const numbers = Object.entries(outOfRange).flatMap(([name, [field, values]]) =>
    [...noNumbers, ...values].map((value): [string, string, Over] => [
      `${name} ${String(value)}`,
      name,
      { sampling: { [field]: value } },
    ]),
  );
  return [
    ['no tokens', 'tokens', { tokens: new Int32Array(0) }],
    ['token -1', 'tokens', { tokens: Int32Array.of(300, -1) }],
    ['token = vocabulary', 'tokens', { tokens: Int32Array.of(vocabSize) }],
    ['token 2^31', 'tokens', { tokens: Int32Array.of(2 ** 31) }],
    ['token 2^32 - 1', 'tokens', { tokens: Int32Array.of(2 ** 32 - 1) }],
    ['tokens in a list', 'tokens', { tokens: [300] as never }],
    ['tokens with fractions', 'tokens', { tokens: Float64Array.of(300.5) as never }],
    ['tokens missing', 'tokens', { tokens: undefined as never }],
    ...numbers,
    ['temperature missing', 'temperature', { sampling: { temperature: null } }],
    ['bias of token -1', 'logit_bias', bias(-1, 1)],
    ['bias of token = vocabulary', 'logit_bias', bias(vocabSize, 1)],
    ['bias of half a token', 'logit_bias', bias(0.5, 1)],
    ['bias NaN', 'logit_bias', bias(1, Number.NaN)],
    ['bias Infinity', 'logit_bias', bias(1, Number.POSITIVE_INFINITY)],
    ['bias 1e300', 'logit_bias', bias(1, 1e300)],
    [
      '5,000 biases',
      'logit_bias',
      { sampling: { logitBias: Array.from({ length: 5000 }, () => ({ token: 1, bias: 1 })) } },
    ],
    ['10,000 stops', 'stop', { stops: Array.from({ length: 10_000 }, (_, each) => `s${each}`) }],
    ['an empty stop', 'stop', { stops: [''] }],
    ['a stop that is no text', 'stop', { stops: [7 as never] }],
    ['a stop that is half a character', 'stop', { stops: ['x', 'a\udf00'] }],
    ['a stop of 1 MB', 'stop', { stops: ['x'.repeat(1 << 20)] }],
    ['17 breakers', 'dry_sequence_breakers', { sampling: { drySequenceBreakers: Array(17).fill('x') } }],
    ['a breaker that is no text', 'dry_sequence_breakers', { sampling: { drySequenceBreakers: [1] } }],
    ['max_tokens -1', 'max_tokens', { maxTokens: -1 }],
    ['max_tokens 0.5', 'max_tokens', { maxTokens: 0.5 }],
    ['max_tokens NaN', 'max_tokens', { maxTokens: Number.NaN }],
    ['max_tokens 2^31', 'max_tokens', { maxTokens: 2 ** 31 }],
    ['top_logprobs 21', 'top_logprobs', { topLogprobs: 21 }],
    ['top_logprobs -1', 'top_logprobs', { topLogprobs: -1 }],
    ['top_logprobs 0.5', 'top_logprobs', { topLogprobs: 0.5 }],
    ...badGrammars.map(([name, grammar]): [string, string, Over] => [
      name,
      'grammar',
      { grammar: { gbnf: grammar } },
    ]),
    ['a grammar that is no text', 'grammar', { grammar: { gbnf: 7 as never } }],
  ];
}

/** The nested ones and the chain end the whole process inside libllama where nobody counts. */
const badGrammars: readonly (readonly [string, string])[] = [
  ['a grammar of comments', '# nothing'],
  ['a grammar cut off', 'root ::= ('],
  ['a literal without an end', 'root ::= "abc'],
  ['a class without an end', 'root ::= [a-'],
  ['a grammar without root', 'other ::= "a"'],
  ['a rule that is missing', 'root ::= missing'],
  ['left recursion', 'root ::= root "a"'],
  ['a repetition backwards', 'root ::= "a"{5,1}'],
  ['a repetition backwards around a comment', 'root ::= "a"{5,#}\n1}'],
  ['a token by its id', 'root ::= "a"<[99999]>'],
  ['20,000 brackets', `root ::= ${'('.repeat(20_000)}"a"${')'.repeat(20_000)}`],
  ['200,000 brackets that stay open', `root ::= ${'('.repeat(200_000)}`],
  ['20,000 rules in a chain', `root ::= r0\n${ruleChain(20_000)}`],
  ['a grammar of 2 MB', `root ::= "${'a'.repeat(2 << 20)}"`],
];

function ruleChain(length: number): string {
  const rules = Array.from({ length }, (_, each) => `r${each} ::= r${each + 1}`);
  return `${rules.join('\n')}\nr${length} ::= "a"`;
}

for (const worker of ['thread', 'process'] as const) {
  describe(`bad input to an owner that is a ${worker}`, () => {
    let device: OwnerDevice;
    let handle: number;
    let facts: ModelFacts;
    let deaths = 0;

    before(async () => {
      device = openDevice(worker);
      device.onOwnerDeath(() => deaths++);
      ({ handle, facts } = await device.load(tiny, ignore));
    });
    after(() => device.shutdown());

    const stillAnswers = async (): Promise<void> => {
      const result = await device.generate(handle, paramsOf({}), ignore);
      assert.equal(result.usage.promptTokens, 3);
      assert.equal(deaths, 0);
    };

    test('a request out of bounds is invalid_request with its field, and starts nothing', async () => {
      for (const [name, param, over] of badRequests(facts)) {
        let steps = 0;
        const refused = device.generate(handle, paramsOf(over), () => steps++);
        await assert.rejects(refused, isRefusal('invalid_request', param), name);
        assert.equal(steps, 0, name);
      }
      await stillAnswers();
    });

    test('a prompt longer than the context is refused with the numbers', async () => {
      for (const length of [context + 1, 100_000]) {
        const tokens = new Int32Array(length).fill(300);
        await assert.rejects(
          device.generate(handle, paramsOf({ tokens }), ignore),
          isRefusal('context_length_exceeded', 'messages', { prompt_len: length, max: context }),
        );
        await assert.rejects(
          device.forwardLogits(handle, tokens, 0),
          isRefusal('context_length_exceeded', null),
        );
      }
      await stillAnswers();
    });

    test('ForwardLogits and Detokenize refuse tokens and offsets that are none', async () => {
      const wrong = [Int32Array.of(-1), Int32Array.of(facts.vocabSize), Int32Array.of(2 ** 31)];
      for (const tokens of [...wrong, Float64Array.of(0.5) as never, [1] as never]) {
        await assert.rejects(device.forwardLogits(handle, tokens, 0), isRefusal('invalid_request', 'tokens'));
        await assert.rejects(device.detokenize(handle, tokens), isRefusal('invalid_request', 'tokens'));
      }
      await assert.rejects(
        device.forwardLogits(handle, new Int32Array(0), 0),
        isRefusal('invalid_request', null),
      );
      for (const offset of [-1, 0.5, 1, 1e9, 2 ** 31, Number.NaN, Number.POSITIVE_INFINITY]) {
        const refused = device.forwardLogits(handle, Int32Array.of(300), offset);
        await assert.rejects(refused, isRefusal('invalid_request', 'offset'), String(offset));
      }
      await stillAnswers();
    });

    test('any text can be tokenized, and comes back', async () => {
      const options = { addSpecial: false, parseSpecial: true };
      for (const text of [
        '',
        '\0',
        '\u{10ffff}',
        '<|im_start|>'.repeat(500),
        'e\u0301'.repeat(300),
        ' \r\n\t',
      ]) {
        const tokens = await device.tokenize(handle, text, options);
        assert.equal(await device.detokenize(handle, tokens), text);
      }
      // Half a surrogate pair is no character; it becomes U+FFFD, as in every encoder of the web.
      const lone = await device.tokenize(handle, 'a\ud800b', options);
      assert.equal(await device.detokenize(handle, lone), 'a\ufffdb');
      await stillAnswers();
    });

    test('the edges of every range are taken', async () => {
      const extremes: readonly Over[] = [
        { sampling: { temperature: 1e-30, seed: 1 } },
        { sampling: { temperature: 100, topK: 2 ** 31 - 1, topP: 0, minP: 1, typicalP: 0, topNSigma: 100 } },
        { sampling: { temperature: 1, seed: -1, topK: -1, topP: 1, minP: 0, typicalP: 1, topNSigma: -1 } },
        { sampling: { temperature: 1, xtcProbability: 1, xtcThreshold: 0, seed: Number.MAX_SAFE_INTEGER } },
        {
          sampling: { temperature: 1, repeatPenalty: 0.01, repeatLastN: 2 ** 31 - 1, frequencyPenalty: -100 },
        },
        {
          sampling: {
            repeatPenalty: 100,
            repeatLastN: 0,
            presencePenalty: 100,
            seed: Number.MIN_SAFE_INTEGER,
          },
        },
        { sampling: { dryMultiplier: 100, dryBase: 100, dryAllowedLength: 0, dryPenaltyLastN: 2 ** 31 - 1 } },
        {
          sampling: {
            dryMultiplier: 1,
            dryPenaltyLastN: 0,
            drySequenceBreakers: ['', 'x'.repeat(256), '\0'],
          },
        },
        { sampling: { logitBias: Array.from({ length: 4096 }, () => ({ token: 5, bias: -1e6 })) } },
        { sampling: { logitBias: [{ token: 5, bias: 1e6 }] }, topLogprobs: 20 },
        { maxTokens: 0 },
        { maxTokens: null, ignoreEos: true },
        { maxTokens: 2 ** 31 - 1, ignoreEos: true },
        { stops: Array.from({ length: 64 }, (_, each) => `${each}${'x'.repeat(4000)}`) },
        { grammar: { gbnf: `root ::= ${'('.repeat(190)}"a"${')'.repeat(190)}` } },
        { grammar: { gbnf: `root ::= r0\n${ruleChain(8000)}` } },
        { tokens: new Int32Array(context).fill(300), maxTokens: 50 },
      ];
      for (const over of extremes) {
        const result = await device.generate(handle, paramsOf(over), ignore);
        assert.ok(['stop', 'length', 'context_full'].includes(result.finishReason), JSON.stringify(over));
      }
      await stillAnswers();
    });

    test('a temperature next to 0 chooses as 0 does', async () => {
      const run = async (temperature: number): Promise<number[]> => {
        const tokens: number[] = [];
        const params = paramsOf({ sampling: { temperature, seed: 3 }, maxTokens: 20, ignoreEos: true });
        await device.generate(handle, params, (event) => void tokens.push(...event.tokens));
        return tokens;
      };
      const greedy = await run(0);
      for (const temperature of [1e-300, 1e-38, 1e-7, 1e-5]) assert.deepEqual(await run(temperature), greedy);
    });
  });
}

function isRefusal(
  code: string,
  param: string | null,
  extras?: Readonly<Record<string, unknown>>,
): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    assert.equal(error.status, 400);
    if (param !== null) assert.equal(error.param, param, error.message);
    if (extras !== undefined) assert.deepEqual(error.extras, extras);
    return true;
  };
}

function openDevice(deviceWorker: 'process' | 'thread'): OwnerDevice {
  return createDevice(
    {
      id: 'cpu',
      index: 0,
      name: 'CPU',
      kind: 'cpu',
      vram_total_mb: 1024,
      compute_capability: null,
      nvidiaIndex: null,
      backendIndex: null,
    },
    { deviceWorker, nativeLog: false, libraryDir: null, clock: systemClock, log: silentLog },
  );
}
