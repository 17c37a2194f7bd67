/** What the twins have yet to be told of replays goes into the stream, in the order of the entries. Again is no harm (C). */
import type { Pool } from 'pg';
import type { GatewayId, SiteId } from '../../protocol/ids.ts';
import { ingestSubject, partitionOf } from '../../protocol/subjects.ts';

const AT_ONCE = 200;

/**
 * Rejects when the stream or PostgreSQL does not take it now: what is left stays in the entries.
 * @param options.publish resolves once the batch is in the stream
 */
export async function tellTwins(options: {
  readonly pool: Pool;
  readonly partitions: number;
  readonly publish: (subject: string, batch: Uint8Array) => Promise<unknown>;
}): Promise<void> {
  const { pool, partitions, publish } = options;
  for (;;) {
    const { rows } = await pool.query<{ id: string; site: SiteId; gateway: GatewayId; batch: Buffer }>(
      `select id, site, gateway, twin_batch as batch from holdfast.quarantine
        where twin_batch is not null order by id limit $1`,
      [AT_ONCE],
    );
    if (rows.length === 0) return;
    for (const { site, gateway, batch } of rows) {
      await publish(ingestSubject(partitionOf(site, partitions), 'backfill', site, gateway), batch);
    }
    await pool.query('update holdfast.quarantine set twin_batch = null where id = any ($1::bigint[])', [
      rows.map(({ id }) => id),
    ]);
    if (rows.length < AT_ONCE) return;
  }
}
