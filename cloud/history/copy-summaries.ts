/**
 * Summaries in PostgreSQL's binary COPY format, pure; all rows have the same size.
 *
 * They go into a table of the session first and from there, behind the fence and together with COMMIT, into
 * `holdfast.summary`: its key would make a writer that is paused before COMMIT hold up the one that took over (D).
 */
const COLUMNS = 'at, sequence, log, device, metric, interval_ms, minimum, maximum, mean, count';

/** Gone with the session, empty after each transaction. */
export const MAKE_SUMMARY_STAGE =
  'create temporary table if not exists holdfast_summary_stage (like holdfast.summary) on commit delete rows';
export const COPY_SUMMARIES = `copy pg_temp.holdfast_summary_stage (${COLUMNS}) from stdin with (format binary)`;
export const STORE_SUMMARIES = `insert into holdfast.summary (${COLUMNS}) select ${COLUMNS} from pg_temp.holdfast_summary_stage`;

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const HEADER_BYTES = SIGNATURE.length + 8;
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const COLUMN_COUNT = 10;
const ROW_BYTES = 2 + COLUMN_COUNT * 4 + 6 * 8 + 4 * 4;

export interface SummaryRow {
  /** Start of the interval, milliseconds since 1970. */
  readonly at: number;
  /** First sequence of the thinned run. */
  readonly sequence: number;
  readonly log: number;
  readonly device: number;
  readonly metric: number;
  readonly intervalMs: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly mean: number;
  /** Readings it stands for. */
  readonly count: number;
}

/** @returns the whole COPY stream */
export function copySummaries(rows: readonly SummaryRow[]): Buffer {
  const buffer = Buffer.alloc(HEADER_BYTES + rows.length * ROW_BYTES + 2);
  let offset = SIGNATURE.copy(buffer) + 8;
  const int8 = (value: number) => {
    offset = buffer.writeInt32BE(8, offset);
    offset = buffer.writeBigInt64BE(BigInt(value), offset);
  };
  const int4 = (value: number) => {
    offset = buffer.writeInt32BE(4, offset);
    offset = buffer.writeInt32BE(value, offset);
  };
  const float8 = (value: number) => {
    offset = buffer.writeInt32BE(8, offset);
    offset = buffer.writeDoubleBE(value, offset);
  };
  for (const row of rows) {
    offset = buffer.writeInt16BE(COLUMN_COUNT, offset);
    int8((row.at - POSTGRES_EPOCH_MS) * 1000);
    int8(row.sequence);
    int4(row.log);
    int4(row.device);
    int4(row.metric);
    int4(row.intervalMs);
    float8(row.minimum);
    float8(row.maximum);
    float8(row.mean);
    int8(row.count);
  }
  buffer.writeInt16BE(-1, offset);
  return buffer;
}
