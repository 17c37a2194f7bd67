/**
 * Real recordings, each as a device of its own with one metric: what a reading takes, compacted. A single device leaves the pages
 * of its day's tables mostly empty, which a fleet fills: so its rows and their entries in indexes are counted, not pages.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { COPY_MESSAGES, copyBuffer } from '../../../cloud/history/copy-rows.ts';
import { rounded, table } from '../tables.ts';
import { compactDatabase } from './compaction.ts';
import { copyInto, type HistoryDatabase, type HistoryServer } from './server.ts';
import { DAY_MS, LOG_ID } from './store-fleet.ts';

const SITE = 'recordings';
/** The line pointer of a row, and an entry in `chunk_device_at` and in the key of `aggregate` with theirs. */
const POINTER_BYTES = 4;
const CHUNK_ENTRY_BYTES = 28;
const AGGREGATE_ENTRY_BYTES = 36;
const METRIC = 'value';

export async function measureRecordings(
  server: HistoryServer,
  folder: string,
  report: (line: string) => void,
) {
  const files = readdirSync(folder).filter(name => name.endsWith('.csv'));
  if (files.length === 0) throw new Error(`no .csv in ${folder}`);
  const database = await server.open('recordings');
  report(`storing ${files.length} recordings`);
  let newest = 0;
  for (const file of files) {
    const points = readRecording(join(folder, file));
    for (const { at } of points) newest = Math.max(newest, at);
    await storeRecording(database, file.slice(0, -4), points);
  }
  report('compacting them');
  await compactDatabase(database, newest + 2 * DAY_MS);
  const { rows } = await database.pool.query<
    Record<'readings' | 'chunk' | 'aggregate', number> & { name: string }
  >(
    `select d.name, c.readings::float8, c.bytes::float8 as chunk, a.bytes::float8 as aggregate
       from holdfast.device d
       join (select device, sum(messages) as readings,
                    sum(pg_column_size(c.*) + ${POINTER_BYTES + CHUNK_ENTRY_BYTES}) as bytes
               from holdfast.chunk c group by device) c on c.device = d.id
       join (select device, sum(pg_column_size(a.*) + ${POINTER_BYTES + AGGREGATE_ENTRY_BYTES}) as bytes
               from holdfast.aggregate a group by device) a on a.device = d.id
      order by d.name`,
  );
  await database.drop();
  const found = rows.map(({ name, readings, chunk, aggregate }) => ({
    name,
    readings,
    bytes_per_reading: rounded((chunk + aggregate) / readings, 1),
    chunk_bytes_per_reading: rounded(chunk / readings, 1),
  }));
  return {
    figures: Object.fromEntries(found.map(({ name, ...of }) => [name, of])),
    table: table([
      ['recording', 'readings', 'bytes per reading', 'of chunks alone'],
      ...found.map(of => [of.name, of.readings, of.bytes_per_reading, of.chunk_bytes_per_reading]),
    ]),
  };
}

interface Point {
  readonly at: number;
  readonly value: number;
}

/** Lines `timestamp,value` in UTC. */
function readRecording(path: string): Point[] {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(1);
  return lines.map(line => {
    const [time = '', value = ''] = line.split(',');
    const at = Date.parse(`${time.replace(' ', 'T')}Z`);
    if (Number.isNaN(at)) throw new Error(`${path}: not a time: ${line}`);
    return { at, value: Number(value) };
  });
}

async function storeRecording(
  { pool, dictionary }: HistoryDatabase,
  name: string,
  points: readonly Point[],
): Promise<void> {
  const column = { name: METRIC, type: 'number', values: new Float64Array() } as const;
  const [shape] = await dictionary.shapes([column], [[0]]);
  const [device] = await dictionary.devices(SITE, [name]);
  const log = await dictionary.log(SITE, name, LOG_ID);
  const rows = copyBuffer(1024);
  for (const [i, { at, value }] of points.entries()) {
    const place = { sequence: i + 1, log: log.id, device: device!, shape: shape!.id, element: 0, kind: 0 };
    rows.add({ at, claimedAt: null, ...place, values: [value], numbers: [0], texts: [] });
  }
  await dictionary.ensureDays(new Set(points.map(({ at }) => new Date(at).toISOString().slice(0, 10))));
  await copyInto(pool, COPY_MESSAGES, rows.finish());
}
