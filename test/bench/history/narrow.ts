/**
 * The peer of history's tables: one row per reading under a key, as most people keep telemetry, filled in the fastest way that
 * PostgreSQL knows, binary COPY. Devices and metrics are numbers in it, which is more than most people do.
 */
import type { Pool } from 'pg';
import { copyInto } from './server.ts';

const MAKE = `create table narrow (
  device int, metric int, time timestamptz, value float8,
  primary key (device, metric, time)
)`;
const COPY = 'copy narrow (device, metric, time, value) from stdin with (format binary)';

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const HEADER_BYTES = SIGNATURE.length + 8;
const COLUMNS = 4;
const ROW_BYTES = 2 + COLUMNS * 4 + 4 + 4 + 8 + 8;
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);

export interface Narrow {
  /** @param at whole milliseconds since 1970 */
  add(device: number, metric: number, at: number, value: number): void;
  /** Writes what was added. */
  flush(): Promise<void>;
  /** After the last one. @returns bytes of the table with its key */
  size(): Promise<number>;
}

/** @param rowsMax between two calls of `flush` */
export async function openNarrow(pool: Pool, rowsMax: number): Promise<Narrow> {
  await pool.query(MAKE);
  const buffer = Buffer.alloc(HEADER_BYTES + rowsMax * ROW_BYTES + 2);
  SIGNATURE.copy(buffer);
  let offset = HEADER_BYTES;
  const int4 = (value: number) => {
    offset = buffer.writeInt32BE(4, offset);
    offset = buffer.writeInt32BE(value, offset);
  };
  return {
    add(device, metric, at, value) {
      offset = buffer.writeInt16BE(COLUMNS, offset);
      int4(device);
      int4(metric);
      offset = buffer.writeInt32BE(8, offset);
      offset = buffer.writeBigInt64BE(BigInt(at - POSTGRES_EPOCH_MS) * 1000n, offset);
      offset = buffer.writeInt32BE(8, offset);
      offset = buffer.writeDoubleBE(value, offset);
    },
    async flush() {
      const end = buffer.writeInt16BE(-1, offset);
      await copyInto(pool, COPY, buffer.subarray(0, end));
      offset = HEADER_BYTES;
    },
    async size() {
      await pool.query('vacuum (analyze) narrow');
      const { rows } = await pool.query<{ bytes: string }>(
        `select pg_total_relation_size('narrow') as bytes`,
      );
      return Number(rows[0]!.bytes);
    },
  };
}
