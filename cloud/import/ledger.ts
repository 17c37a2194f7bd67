/** What the import asks history: how it is divided, what it has settled, how far it has read the stream. It writes nothing. */
import pg from 'pg';
import type { GatewayId, LogId, SiteId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';

export interface StreamPlace {
  /** The stream's identity. */
  readonly created: string;
  readonly sequence: number;
}

/** Every function rejects with PostgreSQL's or the socket's error. */
export interface Ledger {
  partitions(): Promise<number>;
  /** By log; what is not there is not known to history. */
  settled(site: SiteId, gateway: GatewayId, logs: readonly LogId[]): Promise<ReadonlyMap<LogId, RangeSet>>;
  /** How far history has read the backfill lane; null before the first time. */
  handled(partition: number): Promise<StreamPlace | null>;
  close(): Promise<void>;
}

export function openLedger(postgresUrl: string): Ledger {
  const pool = new pg.Pool({ connectionString: postgresUrl, max: 1, connectionTimeoutMillis: 5000 });
  // An idle connection that breaks is opened again by the next query.
  pool.on('error', () => {});
  return {
    async partitions() {
      const { rows } = await pool.query<{ partitions: number }>('select partitions from holdfast.history');
      if (!rows[0]) throw new Error('there is no history in this database yet: start a cloud node first');
      return rows[0].partitions;
    },
    async settled(site, gateway, logs) {
      const { rows } = await pool.query<{ log_id: LogId; settled: string }>(
        `select log_id, settled::text from holdfast.gateway_log
          where site = $1 and gateway = $2 and log_id = any ($3)`,
        [site, gateway, logs],
      );
      return new Map(rows.map(row => [row.log_id, RangeSet.parse(row.settled)]));
    },
    async handled(partition) {
      const { rows } = await pool.query<{ created: string; sequence: string }>(
        `select stream_created as created, stream_sequence::text as sequence from holdfast.stream_cursor
          where partition = $1 and lane = 'backfill'`,
        [partition],
      );
      const row = rows[0];
      return row ? { created: row.created, sequence: Number(row.sequence) } : null;
    },
    close: () => pool.end(),
  };
}
