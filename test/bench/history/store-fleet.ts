/** Messages of the standard fleet straight into `message`, as rows of the project's own making, and into the peer's table. */
import { COPY_MESSAGES, copyBuffer } from '../../../cloud/history/copy-rows.ts';
import type { MetricColumn } from '../../../protocol/batch.ts';
import { type FleetMessage, type FleetOptions, standardFleet } from '../standard-fleet.ts';
import type { Narrow } from './narrow.ts';
import { copyInto, type HistoryDatabase } from './server.ts';

export const METRICS = ['temperature', 'humidity', 'battery', 'vibration'] as const;
export const DAY_MS = 86_400_000;
export const LOG_ID = 'f'.repeat(32);

/** Messages in one COPY. */
export const MESSAGES_PER_COPY = 20_000;
const BYTES_PER_ROW = 160;

export interface StoredFleet {
  readonly messages: number;
  readonly readings: number;
  /** Their numbers in `device`. */
  readonly devices: readonly number[];
}

type Payload = Readonly<Record<(typeof METRICS)[number] | 'ts', number>>;

export const siteName = (site: number): string => `site-${site}`;

export async function storeFleet(
  { pool, dictionary }: HistoryDatabase,
  options: {
    readonly fleet: FleetOptions & { readonly sites: number };
    readonly messages: number;
    /** Of the standard device's; all by default. */
    readonly metrics?: readonly (typeof METRICS)[number][];
    /** Gets the same; there metrics count from 1. */
    readonly narrow?: Narrow;
  },
): Promise<StoredFleet> {
  const { fleet, messages, narrow, metrics = METRICS } = options;
  const columns = metrics.map((name): MetricColumn => ({ name, type: 'number', values: new Float64Array() }));
  const [shape] = await dictionary.shapes(columns, [metrics.map((_, column) => column)]);
  const sites: { log: number; sequence: number }[] = [];
  for (let site = 0; site < fleet.sites; site++) {
    sites.push({ log: (await dictionary.log(siteName(site), 'gw-1', LOG_ID)).id, sequence: 0 });
  }
  const devices = new Map<string, number>();

  async function meet(part: readonly FleetMessage[]): Promise<void> {
    const strangers = part.filter(({ device }) => !devices.has(device));
    for (const [site, those] of Map.groupBy(strangers, message => message.site)) {
      const names = [...new Set(those.map(({ device }) => device))];
      const ids = await dictionary.devices(siteName(site), names);
      for (const [i, name] of names.entries()) devices.set(name, ids[i]!);
    }
  }

  async function store(part: readonly FleetMessage[]): Promise<void> {
    await meet(part);
    const rows = copyBuffer(part.length * BYTES_PER_ROW);
    const days = new Set<string>();
    for (const message of part) {
      const payload = JSON.parse(message.payload) as Payload;
      const values = metrics.map(metric => payload[metric]);
      const device = devices.get(message.device)!;
      const site = sites[message.site]!;
      days.add(new Date(payload.ts).toISOString().slice(0, 10));
      rows.add({
        at: payload.ts,
        claimedAt: null,
        sequence: ++site.sequence,
        log: site.log,
        device,
        shape: shape!.id,
        element: 0,
        kind: 0,
        values,
        numbers: shape!.numbers,
        texts: shape!.texts,
      });
      if (narrow) for (const [i, value] of values.entries()) narrow.add(device, i + 1, payload.ts, value);
    }
    await dictionary.ensureDays(days);
    await Promise.all([copyInto(pool, COPY_MESSAGES, rows.finish()), narrow?.flush()]);
  }

  const source = standardFleet(fleet);
  for (let stored = 0; stored < messages; ) {
    const count = Math.min(MESSAGES_PER_COPY, messages - stored);
    await store(Array.from({ length: count }, () => source.next().value));
    stored += count;
  }
  return { messages, readings: messages * metrics.length, devices: [...devices.values()] };
}
