import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { systemClock } from 'cortex-core/daemon/clock';
import { silentLog } from 'cortex-core/daemon/log';
import { RateBook } from '../decide/rate-book.ts';
import { askChat, setUpFleet, startGatewayOver } from './fleet.test.kit.ts';
import { RatesFile } from './rates-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'cortex-rates-'));
after(() => rmSync(folder, { recursive: true }));

async function opened(file: string) {
  const rates = new RateBook();
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (message: string) => void warnings.push(message) };
  const kept = new RatesFile({ file, rates, clock: systemClock, log });
  await kept.open();
  return { rates, kept, warnings };
}

describe('RatesFile', () => {
  test('what one life measured the next one knows', async () => {
    const file = join(folder, 'new', 'rates.json');
    const first = await opened(file);
    first.rates.note('a', 'm', 'prefillTokS', 1234.5);
    first.rates.noteLoad('a', 'm', 2000, 4000);
    await first.kept.close();
    const second = await opened(file);
    assert.equal(second.rates.of('a', 'm')?.prefillTokS, 1234.5);
    assert.equal(second.rates.of('a', 'm')?.loadMs, 2000);
    assert.equal(second.rates.loadMbS('a'), 2000);
    assert.deepEqual(second.warnings, []);
    await second.kept.close();
    assert.deepEqual(readdirSync(join(folder, 'new')), ['rates.json']);
  });

  test('a bad file is left out with a warning, and replaced', async () => {
    for (const text of ['{"version":1,"rates":[{"no', '{"version":2}', '[]', '{"version":1,"rates":[{}]}']) {
      const file = join(folder, 'bad.json');
      writeFileSync(file, text);
      const { rates, kept, warnings } = await opened(file);
      assert.deepEqual(warnings, ['measured rates are forgotten: their file cannot be read']);
      assert.deepEqual(rates.toRows().rates, []);
      rates.note('a', 'm', 'serviceMs', 5);
      await kept.close();
      assert.equal(JSON.parse(readFileSync(file, 'utf8')).rates[0].service_ms, 5);
    }
  });

  test('where it cannot be written the gateway goes on', async () => {
    const file = join(folder, 'bad.json', 'below-a-file', 'rates.json');
    writeFileSync(join(folder, 'bad.json'), '');
    const { rates, kept, warnings } = await opened(file);
    rates.note('a', 'm', 'serviceMs', 5);
    await kept.close();
    assert.ok(warnings.includes('measured rates cannot be kept'));
  });
});

test('a gateway that starts again routes by what the one before it measured', async () => {
  const config = { state_dir: join(folder, 'state') };
  const { gateway, neurons } = await setUpFleet([{ models: [{ id: 'm', status: 'loaded' as const }] }], {
    config,
  });
  neurons[0]!.onChat = ({ response }) => {
    const usage = { prompt_tokens: 1000, completion_tokens: 20 };
    // 500 tokens a second
    const timings = { queue_ms: 0, prefill_ms: 2000, decode_ms: 500 };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ choices: [{ message: { content: 'x' } }], usage, timings }));
  };
  await (await askChat(gateway, 'm')).text();
  await gateway.close();
  const next = await startGatewayOver(neurons, { config });
  const answer = await fetch(`${next.url}/admin/explain?model=m&prompt_tokens=10000`);
  const { candidates } = (await answer.json()) as { candidates: { terms: { prefill_secs: number } }[] };
  assert.equal(candidates[0]?.terms.prefill_secs, 20);
});
