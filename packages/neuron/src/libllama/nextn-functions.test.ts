import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LibraryHandle } from 'koffi';
import { loadLibrary } from './load-library.ts';
import { bindNextn } from './nextn-functions.ts';

/** A library that exports what `has` says. */
function exporting(has: (name: string) => boolean): {
  library: Pick<LibraryHandle, 'func'>;
  asked: string[];
} {
  const asked: string[] = [];
  const func = (name: string): (() => void) => {
    if (!has(name)) throw new Error(`Cannot find function '${name}'`);
    asked.push(name);
    return () => {};
  };
  return { library: { func } as unknown as Pick<LibraryHandle, 'func'>, asked };
}

test('the pinned library exports the functions for prediction layers', () => {
  const { nextn } = loadLibrary({ nativeLog: false, variant: 'cpu' });
  assert.deepEqual(Object.keys(nextn ?? {}), ['setStates', 'states', 'stateOf', 'setLayer']);
});

test("they are found under either compiler's names, and one that is missing makes all absent", () => {
  for (const isOurs of [(name: string) => name.startsWith('_Z'), (name: string) => name.startsWith('?')]) {
    const { library, asked } = exporting(isOurs);
    assert.notEqual(bindNextn(library), null);
    assert.equal(asked.length, 4);
    for (const missing of asked) {
      assert.equal(bindNextn(exporting((name) => isOurs(name) && name !== missing).library), null);
    }
  }
});
