/**
 * Version 1 on the wire as it was first written. What a gateway sent, and what lies in a stream or on a USB stick, must
 * be readable for ever: these files never change; a new version adds files of its own.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Batch } from '../../protocol/batch.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import { goldenBatches, toJson } from './golden-batches.ts';

for (const name of Object.keys(goldenBatches)) {
  test(`version 1 reads golden/${name}`, () => {
    const bytes = Buffer.from(read(`${name}.hex`).replaceAll('\n', ''), 'hex');
    const outcome = decodeBatch(bytes);
    assert.equal(outcome.outcome, 'batch');
    const { batch } = outcome as { batch: Batch };
    assert.deepEqual(JSON.parse(toJson(batch)), JSON.parse(read(`${name}.json`)));
    assert.deepStrictEqual(batch, goldenBatches[name]);
  });
}

test('version 1 reads golden/v1-heartbeat', () => {
  const bytes = Buffer.from(read('v1-heartbeat.hex').replaceAll('\n', ''), 'hex');
  const outcome = decodeBatch(bytes);
  assert.equal(outcome.outcome, 'heartbeat');
  assert.deepEqual((outcome as { heartbeat: unknown }).heartbeat, JSON.parse(read('v1-heartbeat.json')));
});

const read = (file: string): string => readFileSync(new URL(`golden/${file}`, import.meta.url), 'utf8');
