/** The thread that compacts: a pass, a rest, and so on, with connections of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import pg from 'pg';
import type { CompactionOptions, PassReport } from './compaction.ts';
import { compactAll } from './pass.ts';
import { openShapes } from './shapes.ts';

/** No statement of a pass takes that long: the connection, or what it asks, has got stuck (R). */
const STATEMENT_MS = 300_000;

const { postgresUrl, graceMs, everyMs } = workerData as CompactionOptions;
const closing = new AbortController();
parentPort!.once('message', () => closing.abort());

const pool = new pg.Pool({
  connectionString: postgresUrl,
  application_name: 'holdfast compaction',
  max: 2,
  connectionTimeoutMillis: 10_000,
  keepAlive: true,
  query_timeout: STATEMENT_MS,
  statement_timeout: STATEMENT_MS,
  idleTimeoutMillis: 10_000,
});
pool.on('error', () => {});

const report = (message: PassReport) => parentPort!.postMessage(message);

async function pass(): Promise<void> {
  const client = await pool.connect();
  // The connection may break between two statements.
  const ignore = () => {};
  client.on('error', ignore);
  let failed = false;
  try {
    const count = await compactAll({
      client,
      shapes: openShapes(pool),
      nowMs: Date.now(),
      graceMs,
      signal: closing.signal,
      onFailure: reason => report({ failure: reason }),
    });
    report({ count });
  } catch (error) {
    failed = true;
    throw error;
  } finally {
    client.off('error', ignore);
    client.release(failed);
  }
}

while (!closing.signal.aborted) {
  try {
    await pass();
  } catch (error) {
    report({ failure: (error as Error).message });
  }
  await sleep(everyMs, undefined, { signal: closing.signal }).catch(() => {});
}
await pool.end();
