/** Rows of `message` as the history writer would make them, straight into PostgreSQL. */
import { pipeline } from 'node:stream/promises';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { COPY_MESSAGES, copyBuffer } from '../../../cloud/history/copy-rows.ts';
import type { Dictionary } from '../../../cloud/history/dictionary.ts';
import type { MetricColumn, Value } from '../../../protocol/batch.ts';

export interface StoredMessage {
  readonly device: string;
  readonly log: string;
  readonly at: number;
  readonly element?: number;
  readonly kind?: number;
  readonly claimedAt?: number | null;
  readonly metrics: Readonly<Record<string, Value>>;
}

const SITE = 'demo';
let sequence = 0;

const typeOf = (value: Value): MetricColumn['type'] => typeof value as MetricColumn['type'];

export async function storeMessages(
  pool: pg.Pool,
  dictionary: Dictionary,
  messages: readonly StoredMessage[],
): Promise<void> {
  const rows = copyBuffer(1024);
  const days = new Set<string>();
  for (const message of messages) {
    const names = Object.keys(message.metrics);
    const columns = names.map(name => ({ name, type: typeOf(message.metrics[name]!) }) as MetricColumn);
    const [shape] = await dictionary.shapes(columns, [names.map((_, column) => column)]);
    const [device] = await dictionary.devices(SITE, [message.device]);
    const { id: log } = await dictionary.log(SITE, 'gw-1', message.log);
    days.add(new Date(message.at).toISOString().slice(0, 10));
    rows.add({
      at: message.at,
      claimedAt: message.claimedAt ?? null,
      sequence: ++sequence,
      log,
      device: device!,
      shape: shape!.id,
      element: message.element ?? 0,
      kind: message.kind ?? 0,
      values: Object.values(message.metrics).map(value =>
        typeof value === 'string' ? value.replaceAll('\0', '\u2400').toWellFormed() : value,
      ),
      numbers: shape!.numbers,
      texts: shape!.texts,
    });
  }
  await dictionary.ensureDays(days);
  const client = await pool.connect();
  try {
    await pipeline([rows.finish()], client.query(copyFrom(COPY_MESSAGES)));
  } finally {
    client.release();
  }
}
