import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { type BenchReport, renderBench } from './bench-text.ts';
import { findShippedModelDir } from './model-files.ts';
import { CliProcess, runCli } from './spawn-cli.test.kit.ts';
import { createStyle } from './style.ts';
import { distDir } from './terminal.ts';

const dir = mkdtempSync(join(tmpdir(), 'cortex-bench-'));
after(() => rmSync(dir, { recursive: true }));
const tiny = join(findShippedModelDir(distDir) ?? '', 'cortex-tiny.gguf');
const small = ['--streams', '1,2', '--rounds', '1', '--tokens', '8', '--prompt', '24', '--memory-mb', '1000'];

function checkRuns({ runs, prefix_reuse: reuse }: BenchReport): void {
  assert.deepEqual(
    runs.map(({ streams }) => streams),
    [1, 2],
  );
  for (const run of runs) {
    for (const [name, value] of Object.entries(run)) {
      assert.ok(Number.isFinite(value) && value > 0, `${name} is ${value}`);
    }
    assert.ok(run.first_token_ms_max >= run.first_token_ms);
  }
  assert.equal(reuse.prompt_tokens, 48);
  assert.ok(reuse.cached_tokens >= 0 && reuse.cached_tokens < 48, String(reuse.cached_tokens));
  assert.ok(reuse.first_token_ms.first > 0 && reuse.first_token_ms.second > 0);
}

describe('neuron bench', () => {
  test('measures the model that ships, in a neuron of its own, with its conditions', async () => {
    const { code, stdout, stderr } = await runCli('neuron', ['bench', 'cortex-tiny', ...small, '--json']);
    assert.equal(code, 0, stderr);
    const report = JSON.parse(stdout) as BenchReport;
    assert.equal(report.model, 'cortex-tiny');
    checkRuns(report);
    const { conditions } = report;
    assert.equal(conditions.file, 'cortex-tiny.gguf');
    assert.equal(conditions.file_bytes, statSync(tiny).size);
    assert.deepEqual([conditions.slots, conditions.context, conditions.threads], [2, 72, 1]);
    assert.deepEqual([conditions.prompt, conditions.tokens, conditions.rounds], [24, 8, 1]);
    assert.match(conditions.libllama_version ?? '', /^\d+\.\d+/);
    assert.ok((conditions.cores ?? 0) >= 1 && (conditions.memory_mb ?? 0) > 0);
    assert.equal(conditions.url, null);
    const docs = readFileSync(fileURLToPath(new URL('../../../docs/cli.md', import.meta.url)), 'utf8');
    const { runs, prefix_reuse: reuse } = report;
    for (const part of [report, conditions, runs[0] ?? {}, reuse, reuse.first_token_ms]) {
      for (const key of Object.keys(part)) assert.ok(docs.includes(`\`${key}\``), `docs/cli.md: no ${key}`);
    }
  });

  test('writes nothing but what it measures, and the table, with many streams too', async () => {
    const many = ['--streams', '12', '--rounds', '1', '--tokens', '4', '--prompt', '8'];
    const { code, stdout, stderr } = await runCli('neuron', ['bench', 'cortex-tiny', ...many]);
    assert.equal(code, 0, stderr);
    for (const line of stderr.trimEnd().split('\n')) assert.match(line, /^(loading|measuring) cortex-tiny/);
    assert.match(stdout, /^ +12 .* ms$/m);
    assert.match(stdout, /Prompt repeated: 1\d of 16 tokens reused/);
  });

  test('measures a running neuron as it is, and loads nothing there', async () => {
    const config = join(dir, 'neuron.toml');
    const admission = '[admission]\nmax_queue_depth = 1\n';
    const model = `[[default_models]]\nmodel_id = ${JSON.stringify(tiny)}\nslots = 1\ncontext = 128\n`;
    const head = 'listen = "127.0.0.1"\nport = 0\nkey = "open sesame"\n';
    writeFileSync(config, `${head}${admission}[cpu]\nmemory_mb = 1000\n${model}`);
    const neuron = new CliProcess('neuron', ['--config', config]);
    try {
      const [, url = ''] = await neuron.output(/"url":"(http:[^"]+)"/);
      await neuron.output(/model loaded/);
      const bench = (args: readonly string[], key = 'open sesame') =>
        runCli('neuron', ['bench', ...args, '--url', url, '--api-key', key]);
      const done = await bench(['cortex-tiny', ...small, '--json']);
      assert.equal(done.code, 0, done.stderr);
      const report = JSON.parse(done.stdout) as BenchReport;
      checkRuns(report);
      assert.deepEqual([report.conditions.url, report.conditions.slots], [url, 1]);
      // Two streams and one slot: told in the table.
      const table = await bench(['cortex-tiny', ...small]);
      assert.match(table.stdout, /\* more streams than slots: 1 run at once/);
      for (const [args, key, expected] of [
        [['nothing'], 'open sesame', /model "nothing" is not loaded on http.*; load it there/],
        [['cortex-tiny', ...small], 'wrong', /this neuron needs its key.*--api-key/],
        [['cortex-tiny', '--prompt', '100'], 'open sesame', /context of 128; give smaller --prompt/],
        [['cortex-tiny', ...small, '--streams', '3'], 'open sesame', /3 streams is more than the 2 that run/],
      ] as const) {
        const { code, stderr, stdout } = await bench(args, key);
        assert.match(stderr, expected);
        assert.deepEqual([code, stdout, stderr.trimEnd().split('\n').length], [1, '', 1]);
      }
    } finally {
      neuron.child.kill('SIGTERM');
      await neuron.finished;
    }
  });

  test('a failure is one line that says what to do', async () => {
    writeFileSync(join(dir, 'text.gguf'), 'no model');
    writeFileSync(join(dir, 'cut.gguf'), readFileSync(tiny).subarray(0, 100_000));
    mkdirSync(join(dir, 'folder.gguf'));
    for (const [args, code, expected] of [
      [['nowhere.gguf'], 1, /nowhere\.gguf does not exist/],
      [['text.gguf'], 1, /not a GGUF file/],
      [['cut.gguf'], 1, /cut\.gguf is not usable: it is cut short/],
      [['folder.gguf'], 1, /folder\.gguf is a directory; give the path of one \.gguf file/],
      [
        ['x', '--url', 'http://127.0.0.1:1'],
        1,
        /no neuron is running at http:\/\/127\.0\.0\.1:1; start one with "neu/,
      ],
      [['x', '--streams', '0'], 2, /list of numbers from 1 to 256/],
      [['x', '--streams', '1,,2'], 2, /list of numbers/],
      [['x', '--tokens', '1'], 2, /at least 2/],
      [[], 2, /missing required argument 'model'; see "neuron bench --help"/],
      [['x', '--prot', '1'], 2, /unknown option '--prot'/],
    ] as const) {
      const done = await runCli('neuron', ['bench', ...args], { cwd: dir });
      assert.match(done.stderr, expected);
      assert.equal(done.stderr.trimEnd().split('\n').length, 1, done.stderr);
      assert.deepEqual([done.code, done.stdout], [code, '']);
    }
    const large = ['bench', 'cortex-tiny', '--context', '64', '--prompt', '60', '--memory-mb', '1000'];
    const { code, stderr } = await runCli('neuron', large);
    assert.match(stderr, /context of 64; give smaller --prompt and --tokens/);
    assert.equal(code, 1);
  });

  test('Ctrl-C ends it as shells expect', async () => {
    const args = ['cortex-tiny', '--streams', '1', '--rounds', '1000', '--tokens', '8', '--prompt', '24'];
    const bench = new CliProcess('neuron', ['bench', ...args, '--memory-mb', '1000']);
    await bench.output(/measuring cortex-tiny/);
    bench.child.kill('SIGINT');
    const { code } = await bench.finished;
    assert.equal(code, 130);
  });
});

test('the table fits 80 columns, whatever was measured', () => {
  const run = {
    prompt_tokens_per_second: 123456.7,
    generation_tokens_per_second: 98765.4,
    first_token_ms: 3_599_000,
    first_token_ms_max: 0.4,
  };
  const report: BenchReport = {
    model: 'a-model-with-a-name-that-nobody-would-want-to-type-Q4_K_M-00001-of-00042',
    conditions: {
      date: '2026-01-01T00:00:00.000Z',
      url: null,
      file: null,
      file_bytes: 5e11,
      cpu: 'Intel(R) Xeon(R) Platinum 8592+ CPU @ 1.90GHz with a long name',
      cores: 256,
      memory_mb: 4_000_000,
      load_average: 123.45,
      devices: ['cuda: NVIDIA RTX PRO 6000 Blackwell Workstation Edition'],
      device_worker: 'process',
      threads: 128,
      context: 1_048_576,
      slots: 8,
      model_memory_mb: 400_000,
      neuron_version: '0.1.0',
      libllama_version: '0.4.0',
      libllama_package: '@scope/linux-x64-cuda-ext',
      node_version: 'v20.20.2',
      prompt: 262_144,
      tokens: 65_536,
      rounds: 10,
    },
    runs: [1, 8, 256].map((streams) => ({ streams, ...run })),
    prefix_reuse: {
      prompt_tokens: 524_288,
      cached_tokens: 524_287,
      first_token_ms: { first: 3.6e6, second: 9 },
    },
  };
  for (const colours of [true, false]) {
    const lines = renderBench(report, createStyle(colours)).split('\n').map(stripVTControlCharacters);
    for (const line of lines)
      assert.ok(line.length <= 80 && line === line.trimEnd(), `${line.length}: ${line}`);
    assert.ok(
      lines.some((line) => line.includes('   256*')),
      lines.join('\n'),
    );
    assert.ok(
      lines.some((line) => line.includes('123,457')),
      lines.join('\n'),
    );
  }
});
