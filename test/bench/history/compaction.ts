/** All of a database compacted by one client, with what it cost. */
import { compactAll } from '../../../cloud/history/chunks/pass.ts';
import { openShapes } from '../../../cloud/history/chunks/shapes.ts';
import { cpuMs } from '../process-cpu.ts';
import type { HistoryDatabase } from './server.ts';

/** As a cloud node waits for what comes late; here all has come. */
const GRACE_MS = 60_000;

export interface Compaction {
  readonly messages: number;
  readonly chunks: number;
  readonly seconds: number;
  /** Of this process and of the client's backend. */
  readonly nodeCpuSeconds: number;
  readonly backendCpuSeconds: number;
}

/** @param nowMs what is compacted is over by then */
export async function compactDatabase({ pool }: HistoryDatabase, nowMs: number): Promise<Compaction> {
  const client = await pool.connect();
  try {
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    const { pid } = rows[0]!;
    const shapes = openShapes(pool);
    const backendBefore = cpuMs(pid);
    const nodeBefore = process.cpuUsage();
    const startedAt = performance.now();
    const { messages, chunks } = await compactAll({
      client,
      shapes,
      nowMs,
      graceMs: GRACE_MS,
      onFailure: reason => {
        throw new Error(reason);
      },
    });
    const seconds = (performance.now() - startedAt) / 1000;
    const { user, system } = process.cpuUsage(nodeBefore);
    const backendCpuSeconds = (cpuMs(pid) - backendBefore) / 1000;
    return { messages, chunks, seconds, nodeCpuSeconds: (user + system) / 1e6, backendCpuSeconds };
  } finally {
    client.release();
  }
}
