import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { cortexConfigSchema } from 'cortex-core/config/cortex-config';
import { modelsConfigSchema } from 'cortex-core/config/models-config';
import { silentLog } from 'cortex-core/daemon/log';
import { type FakeNeuron, startFakeNeuron } from 'testkit/fake-neuron';
import { type Gateway, startGateway } from '../gateway.ts';

interface Listed {
  readonly data: readonly (Record<string, unknown> & { readonly id: string })[];
  readonly has_more: boolean;
  readonly first_id: string | null;
  readonly last_id: string | null;
}

const version = { 'anthropic-version': '2023-06-01' };

describe('/v1/models', () => {
  let gateway: Gateway;
  let neuron: FakeNeuron;

  before(async () => {
    neuron = await startFakeNeuron({
      models: [
        { id: 'org/b:Q4', status: 'loaded', context: 4096 },
        { id: 'a' },
        ...Array.from({ length: 30 }, (_, at) => ({ id: `m${String(at).padStart(2, '0')}` })),
      ],
    });
    gateway = await startGateway(
      cortexConfigSchema.parse({
        gateway: { listen: '127.0.0.1:0', metrics_listen: '127.0.0.1:0', poll_interval_secs: 3600 },
        neurons: [{ name: 'n0', endpoint: neuron.url }],
      }),
      modelsConfigSchema.parse({ aliases: { 'claude-x': 'org/b:Q4', lost: 'nowhere' } }),
      { log: silentLog },
    );
  });
  after(async () => {
    await neuron.close();
    await gateway.close();
  });

  const get = (path: string, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(gateway.url + path, { headers });
  const list = async (path: string, headers: Record<string, string> = {}): Promise<Listed> =>
    (await (await get(path, headers)).json()) as Listed;

  test('OpenAI: all at once, sorted, aliases of what there is among them, limits with them', async () => {
    const { data, has_more } = await list('/v1/models');
    const ids = data.map(({ id }) => id);
    assert.deepEqual([ids.length, has_more], [33, false]);
    assert.deepEqual(ids, [...ids].sort());
    const alias = data.find(({ id }) => id === 'claude-x');
    assert.deepEqual([alias?.object, alias?.alias_of, alias?.max_model_len], ['model', 'org/b:Q4', 4096]);
    assert.deepEqual(await list('/models/'), await list('/v1/models'));
  });

  test('OpenAI: each row and each single one has the four fields that its clients read', async () => {
    const { data } = await list('/v1/models');
    for (const row of data) {
      assert.deepEqual([row.object, typeof row.owned_by], ['model', 'string'], row.id);
      assert.ok(Number.isInteger(row.created) && Number(row.created) > 1_600_000_000, row.id);
    }
    const [, row] = data;
    assert.deepEqual(await (await get(`/v1/models/${encodeURIComponent(row?.id ?? '')}`)).json(), row);
  });

  test('Codex, which says its version, finds the key that it cannot do without', async () => {
    const { models, ...rest } = (await list('/v1/models?client_version=0.153.0')) as Listed & {
      models: unknown;
    };
    assert.deepEqual(models, []);
    assert.deepEqual(rest, await list('/v1/models'));
  });

  test('Anthropic: pages of 20, walked forwards to the end and backwards to the beginning', async () => {
    const seen: string[] = [];
    for (let path = '/v1/models'; path !== ''; ) {
      const page: Listed = await list(path, version);
      assert.ok(page.data.length <= 20);
      assert.deepEqual([page.first_id, page.last_id], [page.data[0]?.id, page.data.at(-1)?.id]);
      seen.push(...page.data.map(({ id }) => id));
      path = page.has_more ? `/v1/models?after_id=${encodeURIComponent(page.last_id ?? '')}` : '';
    }
    assert.equal(seen.length, 33);
    const back: string[] = [];
    for (let cursor = '~'; ; ) {
      const page = await list(`/v1/models?limit=7&before_id=${encodeURIComponent(cursor)}`, version);
      back.unshift(...page.data.map(({ id }) => id));
      if (!page.has_more) break;
      cursor = page.first_id ?? '';
    }
    assert.deepEqual(back, seen);
  });

  test('Anthropic: a cursor that went away is still a place in the order', async () => {
    const { data } = await list('/v1/models?after_id=m28-gone&limit=1', version);
    assert.equal(data[0]?.id, 'm29');
  });

  test('Anthropic: a model has the keys of ModelInfo and no others', async () => {
    const model = (await (await get('/v1/models/claude-x', version)).json()) as Record<string, unknown>;
    const { capabilities, created_at, ...rest } = model;
    assert.ok(!Number.isNaN(Date.parse(String(created_at))));
    assert.deepEqual(rest, {
      type: 'model',
      id: 'claude-x',
      display_name: 'claude-x',
      max_input_tokens: 4096,
      max_tokens: 4096,
      lifecycle: 'active',
      line: null,
      deprecated_at: null,
      retires_at: null,
    });
    assert.deepEqual((capabilities as { image_input: unknown }).image_input, { supported: false });
  });

  test('an id with a slash is found raw and encoded, with /v1, without and doubled', async () => {
    for (const path of [
      '/v1/models/org/b:Q4',
      '/v1/models/org%2Fb%3AQ4',
      '/models//org/b:Q4',
      '/v1/v1/models/org/b:Q4/',
    ]) {
      const response = await get(path);
      assert.equal(response.status, 200, path);
      assert.equal(((await response.json()) as { id: string }).id, 'org/b:Q4');
    }
  });

  test('what is not there is 404 in the envelope of who asks', async () => {
    const openai = await get('/v1/models/nobody');
    const { error } = (await openai.json()) as { error: Record<string, unknown> };
    assert.deepEqual([openai.status, error.code, error.param], [404, 'model_not_found', 'model']);
    const anthropic = await get('/v1/models/nobody', version);
    const body = (await anthropic.json()) as { type: string; error: { type: string; message: string } };
    assert.deepEqual([anthropic.status, body.type, body.error.type], [404, 'error', 'not_found_error']);
    assert.equal(body.error.message, 'model: nobody');
    assert.equal((await get('/v1/models/lost')).status, 404);
  });

  for (const limit of ['0', '1001', '-1', '1.5', 'many']) {
    test(`a limit of ${limit} is 400 and names the field`, async () => {
      const response = await get(`/v1/models?limit=${limit}`, version);
      assert.equal(response.status, 400);
      const { error } = (await response.json()) as { error: { message: string } };
      assert.match(error.message, /^limit/);
    });
  }

  test('listings load nothing', () => {
    assert.deepEqual(neuron.events, []);
  });
});
