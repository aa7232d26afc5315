import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSamplingDefaults } from './sampling-defaults.ts';

test('readSamplingDefaults() takes each setting that a file may name, and nothing else of it', () => {
  const metadata = {
    'general.sampling.top_k': '20',
    'general.sampling.top_p': '0.8',
    'general.sampling.min_p': '0.05',
    'general.sampling.xtc_probability': '0.3',
    'general.sampling.xtc_threshold': '0.2',
    'general.sampling.temp': '0.6',
    'general.sampling.penalty_last_n': '-1',
    'general.sampling.penalty_repeat': '1.05',
    'general.sampling.mirostat': '2',
    'general.name': '7',
  };
  assert.deepEqual(readSamplingDefaults(metadata), {
    topK: 20,
    topP: 0.8,
    minP: 0.05,
    xtcProbability: 0.3,
    xtcThreshold: 0.2,
    temperature: 0.6,
    repeatLastN: -1,
    repeatPenalty: 1.05,
  });
});

test('readSamplingDefaults() leaves out what no request might ask for', () => {
  const metadata = {
    'general.sampling.top_k': '1.5',
    'general.sampling.top_p': '7',
    'general.sampling.temp': 'warm',
    'general.sampling.penalty_repeat': '0',
  };
  assert.deepEqual(readSamplingDefaults(metadata), {});
});
