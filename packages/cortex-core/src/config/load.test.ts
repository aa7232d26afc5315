import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError, type ConfigKind, loadConfig, reservedEnvNames, resolveConfigPath } from './load.ts';

const folder = mkdtempSync(join(tmpdir(), 'cortex-config-'));
after(() => rmSync(folder, { recursive: true }));

let files = 0;
function write(text: string | Uint8Array): string {
  const path = join(folder, `${++files}.toml`);
  writeFileSync(path, text);
  return path;
}

function load<K extends ConfigKind>(kind: K, text: string, env: Record<string, string> = {}) {
  return loadConfig(kind, { path: write(text), env });
}

/** The fault lines of a document, with FILE for its path. */
function faults(kind: ConfigKind, text: string | Uint8Array, env: Record<string, string> = {}): string[] {
  const path = write(text);
  try {
    loadConfig(kind, { path, env });
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.message.split('\n').length, error.faults.length);
    return error.message.replaceAll(path, 'FILE').split('\n');
  }
  return assert.fail('the document was accepted');
}

test('an empty cortex.toml is the defaults', () => {
  const config = load('cortex', '');
  assert.deepEqual(config, {
    models_config: 'models.toml',
    gateway: {
      listen: '0.0.0.0:31313',
      metrics_listen: '0.0.0.0:31314',
      poll_interval_secs: 10,
      poll_timeout_secs: 5,
      unhealthy_after_misses: 3,
      rest_after_failures: 5,
      max_body_mb: 64,
      upstream_idle_timeout_secs: 300,
      load_timeout_secs: 300,
      cold_load_wait_secs: 300,
      max_waiting_requests: 1024,
      keepalive_secs: 10,
      watch_config: true,
      prefix_hygiene: true,
      stream_check_every: 100,
      admin_keys: [],
    },
    failover: {
      attempts: 3,
      give_up_secs: 30,
      budget_ratio: 0.2,
      budget_burst: 256,
      continue_streams: true,
      attach_mb: 4,
      attach_total_mb: 64,
    },
    responses: { max_entries: 4096, max_mb: 256, keep_secs: 86400, max_background: 64 },
    eviction: {
      strategy: 'lru',
      drain_timeout_secs: 120,
      cut_after_drain: false,
      idle_ttl_secs: 0,
      defrag_after_cycles: 50,
    },
    queue: { max_wait_secs: 60, min_residency_factor: 1, min_residency_max_secs: 30 },
    neurons: [],
    providers: [],
    entitlements: { require_auth: false, keys: [] },
    log: { level: 'info' },
  });
});

test('a * of an alias is at its end, or is told', () => {
  const aliases = { 'claude-*': 'm', '*': 'm' };
  assert.deepEqual(load('models', '[aliases]\n"claude-*" = "m"\n"*" = "m"\n').aliases, aliases);
  assert.match(faults('models', '[aliases]\n"a*b" = "m"\n')[0] ?? '', /a\*b.*may hold a \* at its end only/);
});

test('an empty models.toml is an empty catalogue', () => {
  assert.deepEqual(load('models', ''), { models: [], aliases: {} });
});

test('an empty neuron.toml is a working neuron', () => {
  assert.deepEqual(load('neuron', ''), {
    listen: '0.0.0.0',
    port: 13131,
    device_worker: 'auto',
    default_models: [],
    engine: {
      native_log: false,
      context: 4096,
      slots: 'auto',
      batch: 2048,
      ubatch: 512,
      cache_type_k: 'f16',
      cache_type_v: 'f16',
      step_timeout_secs: 120,
      prefix_cache_mb: 512,
      speculation: 'auto',
      libllama: 'auto',
    },
    devices: [],
    cpu: { memory_mb: null },
    models: {
      dirs: [],
      default_source: 'huggingface',
      sources: { huggingface: { endpoint: 'https://huggingface.co', auth_env: 'HF_TOKEN' } },
    },
    admission: {
      max_in_flight: null,
      max_queue_depth: 8,
      max_wait_secs: 30,
      max_per_principal: 2,
      max_tokens: 8192,
    },
    limits: { max_body_mb: 64, prefill_secs_max: 600 },
    watch_config: true,
    log: { level: 'info' },
  });
});

test('defaults of array entries depend on the entry', () => {
  const { models } = load('models', '[[models]]\nid="a"\n[[models]]\nid="b"\npinned_on=["x"]');
  assert.deepEqual(
    models.map((model) => [model.harness, model.min_devices, model.residency_priority]),
    [
      ['llamacpp', 1, 100],
      ['llamacpp', 1, 1000],
    ],
  );
  const keys = load('cortex', '[[entitlements.keys]]\nkey="k"\naccount_id="me"').entitlements.keys;
  assert.deepEqual(keys, [
    { key: 'k', account_id: 'me', key_id: 'me', priority: 0, priority_max: 0, window: { kind: 'balance' } },
  ]);
  const spec = load('neuron', 'default_models = [{ model_id = "m" }]').default_models[0];
  assert.deepEqual(spec, { model_id: 'm', harness: 'llamacpp' });
});

test('a source keeps what huggingface has unless it says otherwise', () => {
  const { sources } = load('neuron', '[models.sources.huggingface]\nendpoint="http://127.0.0.1:9/"').models;
  assert.deepEqual(sources, { huggingface: { endpoint: 'http://127.0.0.1:9', auth_env: 'HF_TOKEN' } });
});

test('an unknown key names the nearest one', () => {
  assert.deepEqual(faults('cortex', '[gateway]\n\npoll_intervall_secs = 3\n'), [
    'FILE:3 gateway.poll_intervall_secs: unknown key; did you mean "poll_interval_secs"?',
  ]);
});

test('a key in the wrong table names its table', () => {
  assert.deepEqual(faults('cortex', 'poll_interval_secs = 3'), [
    'FILE:1 poll_interval_secs: unknown key here; did you mean "gateway.poll_interval_secs"?',
  ]);
});

test('an unknown key with nothing near lists the keys of its table', () => {
  assert.deepEqual(faults('cortex', '[eviction]\nfoobarbaz = 1'), [
    'FILE:2 eviction.foobarbaz: unknown key; the keys here are strategy, drain_timeout_secs, cut_after_drain, idle_ttl_secs, defrag_after_cycles',
  ]);
});

test('a key of the original program that is not here says what to do', () => {
  const cortex = ['[upstream]', 'url = "http://x"', '[[nodes]]', 'name = "a"'].join('\n');
  assert.deepEqual(faults('cortex', cortex), [
    'FILE:1 upstream: not supported by this version; remove it',
    'FILE:3 nodes: renamed to [[neurons]]',
  ]);
  const neuron = [
    '[[harnesses]]',
    'name = "candle"',
    '[harness.candle]',
    'devices = [0]',
    '[admission]',
    'anon_max_in_flight = 1',
    'anon_max_pending = 1',
    'kv_max_wait_secs = 1',
    '[prefix_cache]',
    '[context_limit]',
    '[image]',
  ].join('\n');
  assert.deepEqual(faults('neuron', neuron), [
    'FILE:1 harnesses: not supported by this version, llamacpp is built in; remove it',
    'FILE:3 harness: not supported by this version; use [engine] and [models]',
    'FILE:6 admission.anon_max_in_flight: not supported by this version; remove it',
    'FILE:7 admission.anon_max_pending: not supported by this version; remove it',
    'FILE:8 admission.kv_max_wait_secs: not supported by this version; remove it',
    'FILE:9 prefix_cache: is [engine] prefix_cache_mb now',
    'FILE:10 context_limit: is [limits] prefill_secs_max now; memory and training context count by themselves',
    'FILE:11 image: not supported by this version; remove it',
  ]);
  assert.deepEqual(faults('cortex', '', { CORTEX_UPSTREAM__URL: 'http://x' }), [
    'environment CORTEX_UPSTREAM__URL upstream: not supported by this version; remove it',
  ]);
});

test('all faults are reported at once, each with its line', () => {
  const text = [
    'models_confg = "x"', // 1
    '[gateway]',
    'listen = "nowhere"', // 3
    'max_body_mb = "64"',
    'poll_interval_secs = 0', // 5
    'unhealthy_after_misses = 1.5',
    'neuron_key = ""', // 7
    '[eviction]',
    'strategy = "lur"', // 9
    '[[neurons]]',
    'name = "a"', // 11
    'endpoint = "http://a:1"',
    '[[neurons]]', // 13
    'name = "b"',
    'endpoint = "ftp://b"', // 15
    '[[neurons]]',
    'name = "c"', // 17
    '[[entitlements.keys]]',
    'key = "k"', // 19
    'account_id = "a"',
    'window = { kind = "roling" }', // 21
  ].join('\n');
  assert.deepEqual(faults('cortex', text), [
    'FILE:1 models_confg: unknown key; did you mean "models_config"?',
    'FILE:3 gateway.listen: must be host:port, for example "0.0.0.0:31313" or "[::]:31313"',
    'FILE:4 gateway.max_body_mb: must be a number, not a string',
    'FILE:5 gateway.poll_interval_secs: must be more than 0',
    'FILE:6 gateway.unhealthy_after_misses: must be a whole number, not a fraction',
    'FILE:7 gateway.neuron_key: must not be empty',
    'FILE:9 eviction.strategy: must be one of "lru", "priority", "cost"; did you mean "lru"?',
    'FILE:15 neurons[1].endpoint: must be a URL such as "http://10.0.0.5:13131"',
    'FILE:16 neurons[2].endpoint: is required',
    'FILE:21 entitlements.keys[0].window.kind: must be one of "balance", "rolling"; did you mean "rolling"?',
  ]);
});

test('faults in [[providers]]: no key in the file, no open line to the world, no name twice', () => {
  const provider = (name: string, url: string, more = ''): string =>
    `[[providers]]\nname = "${name}"\nkind = "openai"\nurl = "${url}"\nmodels = ["m"]\n${more}`;
  const of = (url: string, more = ''): string[] => faults('cortex', provider('p', url, more));
  assert.match(
    of('http://api.example.com/v1')[0] ?? '',
    /providers\[0\]\.url: must be https; .* allow_http = true/,
  );
  assert.match(of('https://u:secret@x.example/v1')[0] ?? '', /must not hold a user or a password/);
  assert.doesNotMatch(of('https://u:secret@x.example/v1').join(), /secret/);
  assert.match(of('https://x.example/v1?key=1')[0] ?? '', /query/);
  assert.match(of('https://x.example', 'api_key = "sk-1"')[0] ?? '', /api_key: unknown key/);
  assert.match(of('https://x.example', 'key_env = "sk-1"')[0] ?? '', /name of an environment variable/);
  const anthropic = provider('p', 'https://x.example/v1').replace('openai', 'anthropic');
  assert.match(faults('cortex', anthropic)[0] ?? '', /must end before \/v1/);
  const neuron = '[[neurons]]\nname = "p"\nendpoint = "http://a:1"\n';
  assert.match(faults('cortex', neuron + provider('p', 'https://x'))[0] ?? '', /already used by a neuron/);
  for (const host of [
    'localhost',
    '127.0.0.1',
    '10.1.2.3',
    '172.20.0.1',
    '192.168.0.9',
    '[::1]',
    '[fd00::1]',
  ]) {
    loadConfig('cortex', { path: write(provider('p', `http://${host}:8000/v1`)), env: {} });
  }
  for (const host of [
    '172.32.0.1',
    '11.0.0.1',
    '[2001:db8::1]',
    'localhost.example.com',
    '10.0.0.1.example.com',
  ]) {
    assert.equal(of(`http://${host}/v1`).length, 1, host);
  }
  loadConfig('cortex', { path: write(provider('p', 'http://x.example', 'allow_http = true')), env: {} });
});

test('names that must be unique are', () => {
  const text = '[[neurons]]\nname="a"\nendpoint="http://a"\n[[neurons]]\nname="a"\nendpoint="http://a/"\n[x]';
  assert.deepEqual(faults('cortex', text), [
    'FILE:5 neurons[1].name: name "a" is already used by entry 1',
    'FILE:6 neurons[1].endpoint: endpoint is already used by entry 1',
    'FILE:7 x: unknown key; the keys here are models_config, state_dir, gateway, failover, eviction, queue, responses, neurons, providers, entitlements, log',
  ]);
  assert.deepEqual(faults('models', 'models = [\n {id="m"},\n {id="m"},\n]'), [
    'FILE:3 models[1].id: id "m" is already used by entry 1',
  ]);
});

test('faults in models.toml', () => {
  const text = '[[models]]\nid="m"\nlimit={context=1,outptu=2}\nsource="hf:"\n[aliases]\n"gpt-4.1"=3';
  assert.deepEqual(faults('models', text), [
    'FILE:3 models[0].limit.output: is required',
    'FILE:3 models[0].limit.outptu: unknown key; did you mean "output"?',
    'FILE:4 models[0].source: must be a scheme such as "huggingface", without a colon',
    'FILE:6 aliases."gpt-4.1": must be a string, not a number, or must be a table, not a number',
  ]);
});

test('faults in the options of an alias', () => {
  const text = [
    '[aliases.a]',
    'modle = "m"',
    '[aliases.b]',
    'model = "m"',
    'options = { temprature = 1, top_p = 3, model = "x", chat_template_kwargs = { enable_thinking = false } }',
  ].join('\n');
  assert.deepEqual(faults('models', text), [
    'FILE:1 aliases.a.model: is required',
    'FILE:2 aliases.a.modle: unknown key; did you mean "model"?',
    'FILE:5 aliases.b.options.temprature: is no sampling or template option; did you mean "temperature"?',
    'FILE:5 aliases.b.options.top_p: is not valid: Too big: expected number to be <=1',
    'FILE:5 aliases.b.options.model: is no sampling or template option',
  ]);
});

test('faults in neuron.toml', () => {
  const text = [
    'listen = "0.0.0.0:13131"',
    'port = 70000',
    'device_worker = "threads"',
    '[engine]',
    'context = "automatic"',
    '[models]',
    'default_source = "modelscope"',
    '[[default_models]]',
    'model = "x"',
    'draft_model = ""',
  ].join('\n');
  assert.deepEqual(faults('neuron', text), [
    'FILE:1 listen: must not have a port; set `port`',
    'FILE:2 port: must be at most 65535',
    'FILE:3 device_worker: must be one of "auto", "process", "thread"; did you mean "thread"?',
    'FILE:5 engine.context: must be a number, not a string, or must be "auto"',
    'FILE:7 models.default_source: names no source; [models.sources] has huggingface',
    'FILE:8 default_models[0].model_id: is required',
    'FILE:9 default_models[0].model: unknown key; did you mean "model_id"?',
    'FILE:10 default_models[0].draft_model: must not be empty',
  ]);
  assert.deepEqual(faults('neuron', '[models.sources.mirror]\nauth_env = "X"'), [
    'FILE:1 models.sources.mirror.endpoint: is required',
  ]);
  assert.deepEqual(faults('neuron', '[models.sources."A b"]\nendpoint = "http://x"'), [
    'FILE:1 models.sources."A b": is not a valid name here: must match /^[a-z][a-z0-9_-]*$/',
  ]);
});

test('malformed TOML has line and column, and quotes nothing of the file', () => {
  const [line, ...rest] = faults('cortex', '[gateway]\nneuron_key = "secret\n');
  assert.match(line!, /^FILE:2:\d+: is not valid TOML: \S/);
  assert.deepEqual(rest, []);
  assert.doesNotMatch(line!, /secret/);
  assert.match(faults('cortex', 'a = 1\na = 2')[0]!, /^FILE:2:\d+: is not valid TOML/);
  assert.deepEqual(faults('cortex', new Uint8Array([0x61, 0xff, 0xfe])), ['FILE: is not UTF-8 text']);
  assert.deepEqual(load('models', '\uFEFF[aliases]\na = "b"').aliases, { a: 'b' });
});

test('no fault quotes the value of a key', () => {
  const text = '[gateway]\nneuron_key = 123456789\n[[neurons]]\nname="a"\nendpoint="ftp://user:hunter2@h"';
  assert.doesNotMatch(faults('cortex', text).join(), /123456789|hunter2/);
});

test('a file that does not exist is an error, or empty when asked', () => {
  const path = join(folder, 'none.toml');
  const text = `${path}: no such file; name an existing cortex.toml, config/cortex.example.toml is one to start from`;
  assert.throws(() => loadConfig('cortex', { path }), { name: 'ConfigError', message: text });
  assert.deepEqual(loadConfig('models', { path, missing: 'empty' }), { models: [], aliases: {} });
  assert.throws(() => loadConfig('cortex', { path: folder, missing: 'empty' }), /is a directory/);
});

test('without a file the configuration is the defaults and the environment', () => {
  const env = { CORTEX_GATEWAY__LISTEN: '[::1]:5' };
  assert.equal(loadConfig('cortex', { env }).gateway.listen, '[::1]:5');
  assert.throws(() => loadConfig('neuron', { defaults: { port: -1 } }), {
    message: 'neuron configuration port: must be at least 0',
  });
});

test("environment beats file beats the caller's defaults", () => {
  const path = write('[gateway]\nmax_body_mb = 2\nkeepalive_secs = 2');
  const defaults = { gateway: { listen: '127.0.0.1:1', max_body_mb: 1, keepalive_secs: 1 } };
  const { gateway } = loadConfig('cortex', { path, defaults, env: { CORTEX_GATEWAY__KEEPALIVE_SECS: '3' } });
  assert.deepEqual([gateway.listen, gateway.max_body_mb, gateway.keepalive_secs], ['127.0.0.1:1', 2, 3]);
});

test('environment values take the type of their key', () => {
  const config = load('neuron', '', {
    neuron_port: '4',
    Neuron_Engine__Native_Log: 'true',
    NEURON_ENGINE__CONTEXT: 'auto',
    NEURON_KEY: '1234',
    NEURON_LISTEN: '"::1"',
    NEURON_MODELS__DIRS: '["/a", "/b"]',
    NEURON_MODELS__SOURCES__MIRROR__ENDPOINT: 'http://m',
    NEURON_DEFAULT_MODELS: '[{ model_id = "x", slots = 2, draft_model = "small" }]',
    NEURON_ADMISSION__MAX_WAIT_SECS: '0.5',
  });
  assert.equal(config.port, 4);
  assert.equal(config.engine.native_log, true);
  assert.equal(config.engine.context, 'auto');
  assert.equal(config.key, '1234');
  assert.equal(config.listen, '::1');
  assert.deepEqual(config.models.dirs, ['/a', '/b']);
  assert.equal(config.models.sources.mirror?.endpoint, 'http://m');
  assert.deepEqual(config.default_models, [
    { model_id: 'x', harness: 'llamacpp', slots: 2, draft_model: 'small' },
  ]);
  assert.equal(config.admission.max_wait_secs, 0.5);
});

test('a variable that names no key is an error with the nearest name', () => {
  const env = {
    CORTEX_GATEWAY__LISTN: 'x',
    CORTEX_LISTEN: 'x',
    CORTEX_EVICTION__STRATEGY: 'lru ',
    CORTEX_NEURONS__0__NAME: 'x',
  };
  assert.deepEqual(faults('cortex', '', env), [
    'environment CORTEX_GATEWAY__LISTN: names no configuration key ("__" separates table and key); did you mean "CORTEX_GATEWAY__LISTEN"?',
    'environment CORTEX_LISTEN: names no configuration key ("__" separates table and key); did you mean "CORTEX_GATEWAY__LISTEN"?',
    'environment CORTEX_NEURONS__0__NAME: names no configuration key (an array is set as a whole, as TOML); did you mean "CORTEX_NEURONS"?',
    'environment CORTEX_EVICTION__STRATEGY eviction.strategy: must be one of "lru", "priority", "cost"; did you mean "lru"?',
  ]);
});

test('a fault of a variable inside a table of the file names the variable', () => {
  const env = { CORTEX_GATEWAY__MAX_BODY_MB: 'lots' };
  assert.deepEqual(faults('cortex', '[gateway]\nmax_body_mb = 3\nkeepalive_secs = 0', env), [
    'environment CORTEX_GATEWAY__MAX_BODY_MB gateway.max_body_mb: must be a number, not a string',
    'FILE:3 gateway.keepalive_secs: must be more than 0',
  ]);
});

test('a fault in a table that a variable replaced names the variable, not the line of the file', () => {
  const env = { NEURON_MODELS: '{ default_source = "mirror" }' };
  assert.deepEqual(faults('neuron', '[models]\ndefault_source = "huggingface"', env), [
    'environment NEURON_MODELS models.default_source: names no source; [models.sources] has huggingface',
  ]);
});

test('seconds that a timer cannot hold are a fault', () => {
  assert.deepEqual(faults('cortex', '[gateway]\npoll_interval_secs = 1e10\npoll_timeout_secs = inf'), [
    'FILE:2 gateway.poll_interval_secs: must be at most 2147483',
    'FILE:3 gateway.poll_timeout_secs: must be a number, not inf or nan',
  ]);
});

test('reserved names, the other prefix and what Kubernetes sets are left alone', () => {
  const env: Record<string, string> = {
    PATH: '/bin',
    NEURON_PORT: 'tcp://10.0.0.1:13131',
    NEURON_PORT_13131_TCP_ADDR: '10.0.0.1',
    NEURON_SERVICE_PORT_HTTP: '13131',
    CORTEX_SERVICE_HOST: '10.0.0.2',
    ...Object.fromEntries(reservedEnvNames.map((name) => [name, 'x'])),
  };
  assert.equal(load('neuron', '', env).port, 13131);
  assert.equal(load('cortex', '', env).gateway.listen, '0.0.0.0:31313');
  assert.deepEqual(load('models', '', { CORTEX_MODELS: '3' }).models, []);
});

test('resolveConfigPath() is relative to the file', () => {
  assert.equal(resolveConfigPath('models.toml', '/etc/cortex/cortex.toml'), '/etc/cortex/models.toml');
  assert.equal(resolveConfigPath('/m.toml', '/etc/cortex/cortex.toml'), '/m.toml');
  assert.equal(resolveConfigPath('~/m.toml', undefined), join(homedir(), 'm.toml'));
  assert.equal(resolveConfigPath('m.toml', undefined), join(process.cwd(), 'm.toml'));
});
