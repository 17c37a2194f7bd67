/** Holdfast as a benchmark's subject: two sites with a gateway each and a cloud node, on its own servers. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { type Stack, type StackOptions, startStack } from '../../deploy/local/stack.ts';
import { openPushProgress, type ReadUpdate } from './push-progress.ts';
import { benchSites, pidOf, type StoredCount, type Subject } from './subject.ts';

const STORED_POLL_MS = 20;

export interface BatchTotals {
  readonly batches: number;
  readonly bytes: number;
}

export interface HoldfastSubject extends Subject {
  readonly stack: Stack;
  readonly pool: pg.Pool;
  /** Batches that the cloud has taken so far, and their bytes as they were encoded. */
  totals(): Promise<BatchTotals>;
}

export async function startHoldfast(
  options: { readonly directory: string; readonly binaries: Binaries } & Pick<
    StackOptions,
    'report' | 'gatewayEnv' | 'cloudEnv' | 'gatewayNatsUrl'
  >,
): Promise<HoldfastSubject> {
  const stack = await startStack({
    ...options,
    sites: benchSites.map(site => ({ site, gateways: ['gw-1'] })),
  });
  const pool = new pg.Pool({ connectionString: stack.postgres.url, max: 2 });
  const push = await openPushProgress({
    url: `${stack.url.replace('http', 'ws')}/push`,
    subscribe: JSON.stringify({ type: 'subscribe', sites: benchSites }),
    read: readUpdate,
  });
  const brokers = benchSites.map(site => stack.brokers.get(site)!);

  const settled = async () => {
    const { rows } = await pool.query<{ settled: string }>(
      `select coalesce(sum(upper(range) - lower(range)), 0) as settled
         from holdfast.gateway_log, unnest(settled) as range`,
    );
    return Number(rows[0]!.settled);
  };
  let settledBefore = await settled();

  return {
    name: 'Holdfast',
    stack,
    pool,
    brokers: brokers.map(broker => broker.deviceUrl),
    push,
    processes: {
      broker: brokers.map(broker => pidOf(broker.server)),
      gateways: [...stack.gateways.values()].map(pidOf),
      nats: [pidOf(stack.nats)],
      cloud: [pidOf(stack.cloud)],
      redis: [pidOf(stack.redis)],
      postgres: [pidOf(stack.postgres)],
    },
    async stored(messages) {
      while ((await settled()) < settledBefore + messages) await sleep(STORED_POLL_MS);
      settledBefore += messages;
    },
    async count({ fromMs, toMs }) {
      const { rows } = await pool.query<Record<keyof StoredCount, string>>(
        `select count(distinct (device, at)) as messages, coalesce(sum(cardinality(numbers)), 0) as readings,
                count(*) - count(distinct (device, at)) as duplicates
           from holdfast.message
          where at >= to_timestamp($1 / 1000.0) and at < to_timestamp($2 / 1000.0)`,
        [fromMs, toMs],
      );
      return numbers(rows[0]!);
    },
    async totals() {
      const response = await fetch(`${stack.url}/health`);
      const { totals } = (await response.json()) as { totals: BatchTotals };
      return totals;
    },
    output: () =>
      [stack.cloud, ...stack.gateways.values()].map(part => `${part.name}: ${part.output()}`).join('\n'),
    async close() {
      push.close();
      await pool.end();
      await stack.close();
    },
  };
}

interface PushMessage {
  readonly type: string;
  /** Of an `update`. */
  readonly site?: string;
  /** Of a `snapshot`: `site:<name>`, or `twin:<site>/<device>` where a gap was mended. */
  readonly scope?: string;
  readonly twins?: readonly { device: string; metrics: Record<string, { at: number }> }[];
}

const readUpdate: ReadUpdate = (text, update) => {
  const message = JSON.parse(text) as PushMessage;
  const name = message.site ?? message.scope?.split(/[:/]/)[1];
  const site = benchSites.indexOf(name as (typeof benchSites)[number]);
  for (const { device, metrics } of message.twins ?? []) {
    let newest = 0;
    for (const name in metrics) newest = Math.max(newest, metrics[name]!.at);
    update(site, device, newest);
  }
};

const numbers = (row: Record<keyof StoredCount, string>): StoredCount => ({
  messages: Number(row.messages),
  readings: Number(row.readings),
  duplicates: Number(row.duplicates),
});
