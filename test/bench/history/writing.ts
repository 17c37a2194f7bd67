/**
 * The history writer against what writes nothing but rows: the standard fleet in batches as gateways make them, with ledger,
 * cursor, fence and twins, one partition. Round by round in turns with
 *
 *   COPY     the very bytes that the writer copies, made before, through `psql \copy`: no ledger, no twins
 *   INSERT   a prepared INSERT per row, each a transaction of its own: what naive code does
 *
 * All into the same empty table with the same index, on the same server. A batch is decoded when the writer gets it, so
 * making batches is not in its time; making rows of them is.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { indexRules } from '../../../cloud/actors/rule-index.ts';
import { newSiteState, receiveBatch } from '../../../cloud/actors/site.ts';
import type { TwinState } from '../../../cloud/actors/twin.ts';
import { claimPartitions } from '../../../cloud/cluster/leases.ts';
import { newBudget } from '../../../cloud/history/budget.ts';
import { buildTransaction } from '../../../cloud/history/transaction.ts';
import { type HistoryItem, openHistoryWriter } from '../../../cloud/history/writer.ts';
import { buildBatch } from '../../../edge-gateway/batch-builder.ts';
import type { Frame } from '../../../edge-gateway/log/frame.ts';
import type { ReadingsBatch } from '../../../protocol/batch.ts';
import { gatewayId, logId, siteId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import { type FleetMessage, STANDARD_START_MS, standardFleet } from '../standard-fleet.ts';
import { median, rounded, table } from '../tables.ts';
import type { HistoryDatabase, HistoryServer } from './server.ts';
import { DAY_MS, LOG_ID, METRICS, siteName } from './store-fleet.ts';

const FLEET = { devices: 1000, sites: 2 };
/** What gateways and cloud nodes have by default. */
const MESSAGES_PER_BATCH = 2000;
const COMMIT_INTERVAL_MS = 100;
const RETENTION_MS = 90 * DAY_MS;
const PARTITION = 0;
const GATEWAY = gatewayId('gw-1');
/** Memory it holds, about. */
const BYTES_PER_BATCH = 512;
const BYTES_PER_ROW = 64;
const INSERTS = 3000;
const WARM_UP_MESSAGES = 20_000;
const MESSAGE_TABLE =
  'holdfast.message (at, sequence, log, device, shape, element, kind, numbers, texts, claimed_at)';

interface Round {
  readonly writer: number;
  readonly copy: number;
  readonly insert: number;
  readonly nodeCpuUsPerRow: number;
}

export async function measureWriting(
  server: HistoryServer,
  options: {
    readonly messages: number;
    readonly rounds: number;
    readonly directory: string;
    readonly report: (line: string) => void;
  },
) {
  const { messages, rounds, directory, report } = options;
  const database = await server.open('writing');
  const writing = await openWriting(database);
  const source = fleetItems();
  await writing.write(source(WARM_UP_MESSAGES));
  const measured: Round[] = [];
  for (let round = 1; round <= rounds; round++) {
    const items = source(messages);
    // Before they are settled: of what is, nothing would be made.
    const copied = await writing.copyBytes(items);
    const file = join(directory, 'messages.copy');
    writeFileSync(file, copied);
    const rowsPerSecond = async (rows: number, run: () => Promise<void>) => {
      await empty(database);
      const startedAt = performance.now();
      await run();
      const seconds = (performance.now() - startedAt) / 1000;
      await checkRows(database, rows);
      return rows / seconds;
    };
    let nodeCpuUs = 0;
    const writer = await rowsPerSecond(messages, async () => {
      const before = process.cpuUsage();
      await writing.write(items);
      const { user, system } = process.cpuUsage(before);
      nodeCpuUs = user + system;
    });
    const copy = await rowsPerSecond(messages, () =>
      database.copyFile(MESSAGE_TABLE, file, 'with (format binary)'),
    );
    const inserts = Math.min(INSERTS, messages);
    const insert = await rowsPerSecond(inserts, () => insertOneByOne(database, items, inserts));
    rmSync(file);
    measured.push({ writer, copy, insert, nodeCpuUsPerRow: nodeCpuUs / messages });
    report(
      `round ${round} of ${rounds}: writer ${Math.round(writer)} rows/s, ${server.copier} ${Math.round(copy)}, INSERT ${Math.round(insert)}`,
    );
  }
  await writing.close();
  await database.drop();
  const of = (key: keyof Round) => median(measured.map(round => round[key]));
  const figures = {
    copy_ratio: rounded(median(measured.map(({ writer, copy }) => writer / copy)), 3),
    insert_ratio: rounded(median(measured.map(({ writer, insert }) => writer / insert)), 1),
    writer_rows_per_second: Math.round(of('writer')),
    copy_rows_per_second: Math.round(of('copy')),
    insert_rows_per_second: Math.round(of('insert')),
    writer_node_cpu_us_per_row: rounded(of('nodeCpuUsPerRow'), 2),
    copier: server.copier,
    rows_per_round: messages,
  };
  return {
    figures,
    table: table([
      [
        `rows of ${METRICS.length} readings, ${messages.toLocaleString('en')} per round`,
        'rows/s',
        'the writer against it',
      ],
      ['history writer', figures.writer_rows_per_second, ''],
      [`ready-made binary COPY, ${server.copier}`, figures.copy_rows_per_second, figures.copy_ratio],
      ['INSERT per row', figures.insert_rows_per_second, figures.insert_ratio],
    ]),
  };
}

type RawItem = HistoryItem & { readonly batch: ReadingsBatch };

/** @returns the next so many messages of the fleet, in batches, with the twins that they change */
function fleetItems(): (messages: number) => RawItem[] {
  const fleet = standardFleet(FLEET);
  const rules = indexRules([], 1);
  const sites = Array.from({ length: FLEET.sites }, (_, index) => ({
    name: siteId(siteName(index)),
    state: newSiteState(siteName(index)),
    twins: new Map<string, TwinState>(),
    sequence: 0,
  }));
  let streamSequence = 0;
  let receivedAt = 0;

  function itemOf(index: number, frames: readonly Frame[]): RawItem {
    const { name, state, twins } = sites[index]!;
    const batch = buildBatch(logId(LOG_ID), frames);
    if (batch.count !== frames.length || batch.setAside.length > 0) throw new Error('not a whole batch');
    const { changes } = receiveBatch(state, twins, { batch, gateway: GATEWAY, lane: 'live' }, rules);
    for (const [device, { after }] of changes) twins.set(device, after);
    return {
      lane: 'live',
      stream: { created: 'bench', sequence: ++streamSequence },
      site: name,
      gateway: GATEWAY,
      batch,
      poison: null,
      twins: [...changes.values()].map(({ after }) => after),
      transitions: [],
      bytes: BYTES_PER_BATCH + batch.rows.length * BYTES_PER_ROW,
    };
  }

  function frameOf({ site, ts, topic, payload: text }: FleetMessage): Frame {
    // Some milliseconds on the way, and in the order of arrival.
    receivedAt = Math.max(receivedAt, ts + 2);
    const payload = Buffer.from(text);
    return {
      sequence: ++sites[site]!.sequence,
      receivedAt,
      monotonicMs: receivedAt % 1e9,
      qos: 1,
      retain: false,
      duplicate: false,
      packetId: 1,
      topic,
      payload,
      payloadBytes: payload.length,
    };
  }

  return messages => {
    const items: RawItem[] = [];
    const waiting = sites.map((): Frame[] => []);
    for (let i = 0; i < messages; i++) {
      const message = fleet.next().value;
      const frames = waiting[message.site]!;
      frames.push(frameOf(message));
      if (frames.length === MESSAGES_PER_BATCH) items.push(itemOf(message.site, frames.splice(0)));
    }
    for (const [site, frames] of waiting.entries()) if (frames.length > 0) items.push(itemOf(site, frames));
    return items;
  };
}

async function openWriting({ pool, dictionary }: HistoryDatabase) {
  const [claim] = await claimPartitions(pool, 'bench', [PARTITION], 1);
  const { epoch } = claim!;
  const budget = newBudget(Number.POSITIVE_INFINITY);
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {});
  let onSettled: (messages: number) => void = () => {};
  const context = {
    dictionary,
    partition: PARTITION,
    epoch,
    retentionMs: RETENTION_MS,
    now: () => STANDARD_START_MS + DAY_MS,
  };
  const writer = openHistoryWriter({
    ...context,
    pool,
    budget,
    logger: pino({ level: 'silent' }),
    commitIntervalMs: COMMIT_INTERVAL_MS,
    onSettled: notices => onSettled(notices.reduce((sum, { ranges }) => sum + ranges.size, 0)),
    onExpired: rows => failure.reject(new Error(`${rows} rows are too old`)),
    onStaleEpoch: () => failure.reject(new Error("the partition is somebody else's")),
  });
  return {
    /** Resolves when all of it is settled. */
    async write(items: readonly RawItem[]): Promise<void> {
      const done = Promise.withResolvers<void>();
      let left = items.reduce((sum, { batch }) => sum + batch.count, 0);
      onSettled = messages => {
        left -= messages;
        if (left <= 0) done.resolve();
      };
      for (const item of items) writer.enqueue(item);
      await Promise.race([done.promise, failure.promise]);
    },
    /** What the writer is going to copy of it, in one piece. */
    async copyBytes(items: readonly RawItem[]): Promise<Buffer> {
      const works = [];
      for (const item of items) {
        const { firstSequence, count } = item.batch;
        const log = await dictionary.log(item.site, item.gateway, item.batch.logId);
        works.push({ item, log, fresh: RangeSet.of(firstSequence, firstSequence + count) });
      }
      const { rows } = await buildTransaction(works, [], context);
      return rows!;
    },
    close: () => writer.close(1000),
  };
}

const INSERT = {
  name: 'insert-message',
  text: `insert into ${MESSAGE_TABLE} values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
};

/** Values of rows are made while the clock runs, as naive code does. */
async function insertOneByOne(
  { pool, dictionary }: HistoryDatabase,
  items: readonly RawItem[],
  rows: number,
): Promise<void> {
  const client = await pool.connect();
  let left = rows;
  try {
    for (const { site, gateway, batch } of items) {
      const log = await dictionary.log(site, gateway, batch.logId);
      const devices = await dictionary.devices(site, batch.devices);
      const shapes = await dictionary.shapes(batch.metrics, batch.shapes);
      for (let row = 0; row < batch.rows.length && left > 0; row++, left--) {
        const { at, device, sequenceOffset, shape } = batch.rows;
        const { id, numbers } = shapes[shape[row]!]!;
        // The fleet has one shape, so a row's place is its place in every column.
        const values = numbers.map(column => batch.metrics[column]!.values[row]);
        const sequence = batch.firstSequence + sequenceOffset[row]!;
        const place = [sequence, log.id, devices[device[row]!]!, id, 0, 0];
        await client.query({ ...INSERT, values: [new Date(at[row]!), ...place, values, null, null] });
      }
    }
  } finally {
    client.release();
  }
}

/** What is dirty is on disk then, too. */
async function empty({ pool, checkpoint }: HistoryDatabase): Promise<void> {
  await pool.query('truncate holdfast.message');
  await checkpoint();
}

async function checkRows({ pool }: HistoryDatabase, wanted: number): Promise<void> {
  const { rows } = await pool.query<{ count: number }>('select count(*)::int from holdfast.message');
  if (rows[0]!.count !== wanted) throw new Error(`${wanted} rows were written, ${rows[0]!.count} are there`);
}
