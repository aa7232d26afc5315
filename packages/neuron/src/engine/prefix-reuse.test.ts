/** The prefix cache on real weights: what is reused, and that an answer never depends on it. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { KvPrefix, LoadSpec } from 'cortex-core/wire/inference';
import { loadLibrary } from '../libllama/load-library.ts';
import { ask, assertAlike, chatTokens, drain, listen, requestFor, tinySpec } from './engine.test.kit.ts';
import { Engine } from './engine.ts';
import type { LoadedModel } from './loaded-model.ts';

const library = loadLibrary({ nativeLog: false });
const engine = new Engine({ library });
after(() => engine.close());

function withModel(over: Partial<LoadSpec>, run: (model: LoadedModel) => void): void {
  const model = engine.load(tinySpec(over));
  try {
    run(model);
  } finally {
    model.close();
  }
}

/** Tokens of a text that no other seed begins with. */
const text = (model: LoadedModel, seed: number, words: number): Int32Array => {
  const list = Array.from({ length: words }, (_, at) => `word${(seed * 7919 + at * 31) % 997}`).join(' ');
  return model.tokenize(list, { addSpecial: false, parseSpecial: false });
};
const join = (...parts: readonly Int32Array[]): Int32Array =>
  Int32Array.from(parts.flatMap((part) => [...part]));

function run(model: LoadedModel, tokens: Int32Array, maxTokens = 8) {
  const heard = listen(model, requestFor(tokens, { maxTokens, ignoreEos: true }));
  drain(model);
  assert.equal(heard.error, null);
  return heard;
}

test('the same prompt again computes one token, and answers the same', () => {
  withModel({}, (model) => {
    const prompt = text(model, 1, 120);
    const first = run(model, prompt);
    const second = run(model, prompt);
    assert.equal(first.result?.usage.cachedTokens, 0);
    assert.equal(second.result?.usage.cachedTokens, prompt.length - 1);
    assert.deepEqual(second.tokens, first.tokens);
  });
});

test('with a seed the same request gives the same text, cached or not, with flash attention too', () => {
  withModel({ flashAttention: true, ubatch: 512, batch: 512 }, (model) => {
    for (const temperature of [0, 1]) {
      for (let seed = 0; seed < 5; seed++) {
        const prompt = text(model, 60 + seed, 60 + seed * 10);
        const again = () => {
          const params = { maxTokens: 48, ignoreEos: true, sampling: { temperature, seed } };
          const heard = listen(model, requestFor(prompt, params));
          drain(model);
          return { tokens: heard.tokens, cachedTokens: heard.result?.usage.cachedTokens };
        };
        model.clearKv();
        const [cold, warm] = [again(), again()];
        assert.deepEqual([cold.cachedTokens, warm.cachedTokens], [0, prompt.length - 1]);
        assert.deepEqual(warm.tokens, cold.tokens);
      }
    }
  });
});

test('the second turn of a chat reuses prompt and answer', () => {
  withModel({}, (model) => {
    const first = run(model, text(model, 2, 100), 20);
    const said = join(text(model, 2, 100), Int32Array.from(first.tokens));
    const second = run(model, join(said, text(model, 3, 20)));
    // The last token of an answer was chosen and never computed.
    assert.equal(second.result?.usage.cachedTokens, said.length - 1);
  });
});

test('a prompt that parts early reuses the beginning and does not destroy the longer chat', () => {
  withModel({}, (model) => {
    const system = text(model, 4, 40);
    const long = join(system, text(model, 5, 120));
    run(model, long);
    const fork = run(model, join(system, text(model, 6, 20)));
    assert.ok((fork.result?.usage.cachedTokens ?? 0) >= system.length - 1);
    const again = run(model, long);
    assert.ok((again.result?.usage.cachedTokens ?? 0) >= long.length - 1);
  });
});

test('sixteen sessions with one system prompt read it once', () => {
  withModel({ slots: 8, prefixCacheMb: 64 }, (model) => {
    const system = text(model, 7, 200);
    const prompts = Array.from({ length: 16 }, (_, at) => join(system, text(model, 100 + at, 12)));
    const heard = prompts.map((tokens) =>
      listen(model, requestFor(tokens, { maxTokens: 4, ignoreEos: true })),
    );
    drain(model);
    const computed = heard.map(({ result }) => {
      assert.ok(result);
      return result.usage.promptTokens - result.usage.cachedTokens;
    });
    const least = prompts.reduce((sum, each) => sum + each.length - system.length, system.length);
    const total = computed.reduce((sum, each) => sum + each, 0);
    assert.ok(total <= least * 1.05, `${total} tokens computed, ${least} would do`);
  });
});

test('four answers to one prompt read it once, and each is what it would be alone', () => {
  withModel({ slots: 4 }, (model) => {
    const prompt = text(model, 8, 150);
    const params = (seed: number) =>
      requestFor(prompt, { maxTokens: 12, ignoreEos: true, sampling: { temperature: 0.9, seed } });
    const heard = [1, 2, 3, 4].map((seed) => listen(model, params(seed)));
    drain(model);
    const computed = heard.reduce(
      (sum, { result }) => sum + prompt.length - (result?.usage.cachedTokens ?? 0),
      0,
    );
    assert.equal(computed, prompt.length + 3);
    for (const [index, { tokens }] of heard.entries()) {
      const alone = listen(model, params(index + 1));
      drain(model);
      assert.deepEqual(tokens, alone.tokens);
    }
  });
});

test('who waits for a prompt goes on when its reader is cancelled', () => {
  withModel({ slots: 2 }, (model) => {
    const prompt = text(model, 9, 200);
    const reader = listen(model, requestFor(prompt, { maxTokens: 2, ignoreEos: true }));
    const waiter = listen(model, requestFor(prompt, { maxTokens: 2, ignoreEos: true }));
    model.step();
    model.step();
    reader.cancel();
    drain(model);
    assert.equal(reader.result?.finishReason, 'cancelled');
    assert.equal(waiter.result?.usage.completionTokens, 2);
    assert.ok((waiter.result?.usage.cachedTokens ?? 0) > 0, 'what the reader had computed was lost');
  });
});

test('who waits for a prompt takes it over before the next in the queue overwrites it', () => {
  withModel({ slots: 2, prefixCacheMb: 0 }, (model) => {
    const prompt = text(model, 15, 200);
    const [reader, waiter] = [1, 2].map((maxTokens) =>
      listen(model, requestFor(prompt, { maxTokens, ignoreEos: true })),
    );
    const next = listen(model, requestFor(text(model, 16, 200), { maxTokens: 2, ignoreEos: true }));
    drain(model);
    assert.equal(reader?.result?.usage.cachedTokens, 0);
    assert.equal(waiter?.result?.usage.cachedTokens, prompt.length - 1);
    assert.equal(next.result?.usage.completionTokens, 2);
  });
});

test('with one slot a second chat is kept in host memory while the first one runs', () => {
  withModel({ slots: 1, prefixCacheMb: 64 }, (model) => {
    const [a, b] = [text(model, 10, 150), text(model, 11, 150)];
    const firstA = run(model, a);
    run(model, b);
    const secondA = run(model, join(a, Int32Array.from(firstA.tokens), text(model, 12, 5)));
    assert.equal(secondA.result?.usage.cachedTokens, a.length + firstA.tokens.length - 1);
    assert.equal(run(model, a).tokens.join(), firstA.tokens.join());
  });
  withModel({ slots: 1, prefixCacheMb: 0 }, (model) => {
    const [a, b] = [text(model, 10, 150), text(model, 11, 150)];
    run(model, a);
    run(model, b);
    // Both begin with the same token.
    assert.equal(run(model, a).result?.usage.cachedTokens, 1);
  });
});

test('clearKv() forgets every prefix and leaves a running stream alone', () => {
  withModel({ prefixCacheMb: 64 }, (model) => {
    const prompt = text(model, 13, 100);
    const expected = run(model, prompt, 20).tokens;
    const running = listen(model, requestFor(prompt, { maxTokens: 20, ignoreEos: true }));
    model.step();
    model.clearKv();
    drain(model);
    assert.deepEqual(running.tokens, expected);
    model.clearKv();
    assert.equal(run(model, prompt).result?.usage.cachedTokens, 0);
  });
});

test('exported prefixes are warm in another load of the file, and useless states are left out', () => {
  let exported: readonly KvPrefix[] = [];
  let said: Int32Array = new Int32Array(0);
  let answer: readonly number[] = [];
  withModel({ prefixCacheMb: 64, slots: 2 }, (model) => {
    for (const seed of [20, 21, 22]) run(model, text(model, seed, 80));
    said = text(model, 20, 80);
    exported = model.exportPrefixes();
    answer = run(model, join(said, text(model, 30, 4))).tokens;
  });
  assert.equal(exported.length, 3);
  withModel({ prefixCacheMb: 64, slots: 2 }, (model) => {
    const [first] = exported;
    assert.ok(first);
    model.importPrefixes([...exported, { tokens: first.tokens, state: first.state.slice(0, 40) }]);
    const moved = run(model, join(said, text(model, 30, 4)));
    assert.equal(moved.result?.usage.cachedTokens, said.length);
    assert.deepEqual(moved.tokens, answer);
  });
});

test('a failed decode call leaves no wrong prefix behind', () => {
  let failing = 0;
  const broken = {
    ...library,
    api: {
      ...library.api,
      llama_decode: (...args: Parameters<typeof library.api.llama_decode>) =>
        failing-- === 1 ? -3 : library.api.llama_decode(...args),
    },
  };
  const own = new Engine({ library: broken });
  const model = own.load(tinySpec());
  try {
    const prompt = text(model, 14, 150);
    const expected = run(model, prompt).tokens;
    model.clearKv();
    failing = 2;
    const failed = listen(model, requestFor(prompt));
    drain(model);
    assert.equal(failed.error?.code, 'job_failed');
    const next = run(model, prompt);
    assert.equal(next.result?.usage.cachedTokens, 0);
    assert.deepEqual(next.tokens, expected);
  } finally {
    own.close();
  }
});

test('random chats over few slots: every answer equals the one of an empty cache', () => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1e9);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  withModel({ slots: 3, prefixCacheMb: 1, context: 512 }, (model) => {
    withModel({ slots: 1, prefixCacheMb: 0, context: 512 }, (plain) => {
      const chats = Array.from({ length: 5 }, (_, at) => text(model, at % 2, 30 + at));
      for (let round = 0; round < 25; round++) {
        const turn = Array.from({ length: 1 + random(4) }, () => random(chats.length));
        const heard = turn.map((chat) => {
          const tokens = join(chats[chat]!, text(model, random(50), 1 + random(10)));
          return { chat, tokens, ...listenPair(model, tokens) };
        });
        drain(model);
        for (const { chat, tokens, result } of heard) {
          plain.clearKv();
          const expected = listenPair(plain, tokens).result();
          drain(plain);
          assert.equal(result().error, null);
          assertAlike(result(), expected, `TEST_SEED=${seed}, round ${round}`);
          chats[chat] =
            tokens.length < 350 ? join(tokens, Int32Array.from(result().tokens)) : text(model, chat, 30);
        }
      }
    });
  });
});

function listenPair(model: LoadedModel, tokens: Int32Array) {
  const heard = listen(model, requestFor(tokens, { maxTokens: 6, ignoreEos: true, topLogprobs: 20 }));
  return { result: () => heard };
}

test('a chat template and its second turn share the whole first turn', () => {
  withModel({}, (model) => {
    const first = ask(model, 'What is the capital of France?');
    const head = '<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n';
    const next = `${head}${first.text}<|im_end|>\n<|im_start|>user\nAnd of Italy?<|im_end|>\n<|im_start|>assistant\n`;
    const tokens = model.tokenize(next, { addSpecial: true, parseSpecial: true });
    const second = run(model, tokens);
    const firstPrompt = chatTokens(model, 'What is the capital of France?');
    assert.equal(second.result?.usage.cachedTokens, firstPrompt.length + first.tokens.length);
  });
});
