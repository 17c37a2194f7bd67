/** All messages become chunks, whatever their hour. */
import assert from 'node:assert/strict';
import type pg from 'pg';
import type { CompactionCount } from '../../../cloud/history/chunks/compact.ts';
import { compactAll } from '../../../cloud/history/chunks/pass.ts';
import { openShapes } from '../../../cloud/history/chunks/shapes.ts';

const DAY_MS = 86_400_000;

/** @param nowMs as if it were then; by default all hours that have begun are over */
export async function compactEverything(
  pool: pg.Pool,
  nowMs = Date.now() + DAY_MS,
): Promise<CompactionCount> {
  const client = await pool.connect();
  try {
    const onFailure = (reason: string) => assert.fail(reason);
    return await compactAll({ client, shapes: openShapes(pool), nowMs, graceMs: 0, onFailure });
  } finally {
    client.release();
  }
}
