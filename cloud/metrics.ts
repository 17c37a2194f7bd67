/**
 * `GET /metrics`: what this node knows of gateways and of itself at the moment of asking, in Prometheus text format.
 * Nothing is counted here; figures that are not known are left out rather than told as 0.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import type { BackupOutlook } from './backup/outlook.ts';
import type { GatewayLink } from './gateway-link.ts';
import type { GatewayPresence } from './gateway-memory.ts';
import type { Health } from './health.ts';
import type { ChannelStatus } from './incidents/delivery.ts';

export interface Metrics {
  readonly contentType: string;
  readonly text: () => Promise<string>;
}

interface Figure<Of> {
  readonly name: string;
  readonly help: string;
  readonly type: 'gauge' | 'counter';
  /** Null: not known, or none. */
  readonly value: (of: Of) => number | null;
}

const figure = <Of>(
  type: 'gauge' | 'counter',
  name: string,
  help: string,
  value: (of: Of) => number | null,
): Figure<Of> => ({ type, name, help, value });

type HeardGateway = GatewayPresence & { readonly up: boolean };

const gatewayFigures: readonly Figure<HeardGateway>[] = [
  figure('gauge', 'up', '1 while its hellos come, 0 when it has gone silent.', ({ up }) => Number(up)),
  figure(
    'gauge',
    'last_hello_timestamp_seconds',
    'When it was last heard.',
    ({ lastHelloAt }) => lastHelloAt / 1000,
  ),
  figure('gauge', 'active', '1 when it takes messages, 0 on standby.', ({ report }) =>
    Number(report.role === 'active'),
  ),
  figure('gauge', 'broker_connected', '1 while it is connected to its broker.', ({ report }) =>
    Number(report.broker.connected),
  ),
  figure('gauge', 'buffer_bytes', 'Bytes of its disk buffer in use.', ({ report }) => report.bufferBytes),
  figure('gauge', 'buffer_bytes_max', 'Bound of its disk buffer.', ({ report }) => report.bufferBytesMax),
  figure(
    'gauge',
    'unsettled_messages',
    'Messages on its disk that history has not settled.',
    ({ report }) => report.unsettledMessages,
  ),
  figure(
    'gauge',
    'oldest_unsettled_timestamp_seconds',
    'Arrival of the oldest message that history has not settled.',
    ({ report }) => (report.oldestUnsettledAt === null ? null : report.oldestUnsettledAt / 1000),
  ),
  figure(
    'gauge',
    'wire_bytes_left',
    'Bytes that the unsettled messages still cost on the wire.',
    ({ report }) => report.wireBytesLeft,
  ),
  figure(
    'gauge',
    'full_in_seconds',
    'Until the buffer is at its bound, at present rates.',
    ({ report }) => report.forecast.fullInSeconds,
  ),
  figure(
    'gauge',
    'drained_in_seconds',
    'Until nothing waits any more, at present rates.',
    ({ report }) => report.forecast.drainedInSeconds,
  ),
  figure(
    'counter',
    'messages_total',
    'Messages taken from the broker since it started.',
    ({ report }) => report.messages,
  ),
  figure(
    'counter',
    'dropped_messages_total',
    'QoS 0 messages refused because the buffer was full.',
    ({ report }) => report.dropped,
  ),
  figure(
    'gauge',
    'thinned_messages',
    'Messages on its disk of which only a summary is left.',
    ({ report }) => report.thinnedMessages,
  ),
  figure(
    'gauge',
    'lost_messages',
    'Messages on its disk that can no longer be read.',
    ({ report }) => report.lostMessages,
  ),
  figure(
    'gauge',
    'sync_seconds',
    'Round trip of an fdatasync, 99th percentile.',
    ({ report }) => report.syncMs / 1000,
  ),
  figure(
    'gauge',
    'data_budget_bytes',
    'What its metered link may carry.',
    ({ report }) => report.dataBudget?.bytesMax ?? null,
  ),
  figure(
    'gauge',
    'data_budget_used_bytes',
    'What its metered link has carried of it.',
    ({ report }) => report.dataBudget?.bytesUsed ?? null,
  ),
];

const nodeFigures: readonly Figure<Health>[] = [
  figure('gauge', 'node_healthy', '1 when /health says ok.', ({ status }) => Number(status === 'ok')),
  figure('gauge', 'node_uptime_seconds', 'Since this node started.', ({ uptimeSeconds }) => uptimeSeconds),
  figure('counter', 'ingest_batches_total', 'Batches read from the stream.', ({ totals }) => totals.batches),
  figure('counter', 'ingest_bytes_total', 'Their bytes on the wire.', ({ totals }) => totals.bytes),
  figure('counter', 'ingest_messages_total', 'Messages in them.', ({ totals }) => totals.messages),
  figure('counter', 'ingest_readings_total', 'Readings in them.', ({ totals }) => totals.readings),
  figure(
    'counter',
    'ingest_late_messages_total',
    'Messages that came by the backfill lane.',
    ({ totals }) => totals.late,
  ),
  figure(
    'counter',
    'ingest_thinned_messages_total',
    'Messages in runs that came thinned.',
    ({ totals }) => totals.thinned,
  ),
  figure(
    'counter',
    'ingest_lost_messages_total',
    'Messages that gateways declared lost.',
    ({ totals }) => totals.lost,
  ),
  figure(
    'counter',
    'ingest_quarantined_messages_total',
    'Messages set aside.',
    ({ totals }) => totals.quarantined,
  ),
  figure(
    'counter',
    'ingest_expired_rows_total',
    'Rows and summaries older than the retention time.',
    ({ totals }) => totals.expired,
  ),
  figure(
    'counter',
    'ingest_corrupt_batches_total',
    'Batches damaged on the way.',
    ({ totals }) => totals.corrupt,
  ),
  figure(
    'counter',
    'ingest_refused_batches_total',
    'Batches of a wire version or partition that is not ours.',
    ({ totals }) => totals.refused,
  ),
  figure(
    'counter',
    'ingest_rows_without_twin_total',
    'Rows of devices beyond the bound of twins per site.',
    ({ totals }) => totals.withoutTwin,
  ),
  figure(
    'gauge',
    'ingest_lag_seconds',
    'Arrival at the gateway to live state, of the newest live batch.',
    ({ lagMs }) => lagMs / 1000,
  ),
  figure(
    'gauge',
    'history_queue_batches',
    'Batches that wait for PostgreSQL.',
    ({ historyQueue }) => historyQueue.batches,
  ),
  figure('gauge', 'history_queue_bytes', 'Memory they take.', ({ historyQueue }) => historyQueue.bytes),
  figure('gauge', 'history_queue_bytes_max', 'Bound of it.', ({ historyQueue }) => historyQueue.bytesMax),
  figure('gauge', 'push_clients', 'Open push connections.', ({ push }) => push.clients),
  figure('counter', 'push_messages_total', 'Messages pushed.', ({ push }) => push.messagesSent),
  figure(
    'gauge',
    'event_loop_lag_p99_seconds',
    'How late the event loop runs, 99th percentile.',
    ({ eventLoopLagMs }) => eventLoopLagMs.p99 / 1000,
  ),
];

const channelFigures: readonly Figure<ChannelStatus>[] = [
  figure('gauge', 'up', '1 while its last page was taken, 0 while pages fail.', ({ trouble }) =>
    Number(trouble === null),
  ),
  figure('gauge', 'waiting_pages', 'Pages that it has yet to be told.', ({ waiting }) => waiting),
  figure('counter', 'delivered_pages_total', 'Pages that it took.', ({ delivered }) => delivered),
  figure('counter', 'failed_attempts_total', 'Attempts that failed.', ({ failedAttempts }) => failedAttempts),
];

const backupFigures: readonly Figure<BackupOutlook>[] = [
  figure(
    'gauge',
    'last_confirmed_timestamp_seconds',
    'When the last confirmed backup was begun.',
    ({ confirmed }) => (confirmed === null ? null : confirmed.begunAt / 1000),
  ),
  figure(
    'gauge',
    'uncovered_seconds',
    'For how long what came in is in no confirmed backup.',
    ({ uncovered }) => uncovered.hours * 3600,
  ),
  figure(
    'gauge',
    'uncovered_messages',
    'Settled messages that are in no confirmed backup.',
    ({ uncovered }) => uncovered.messages,
  ),
  figure('gauge', 'overdue', '1 when gateways may have given back what no backup has.', ({ state }) =>
    Number(state === 'overdue'),
  ),
];

export function openMetrics(options: {
  health: () => Health;
  gateways: Pick<GatewayLink, 'gateways' | 'silentSince'>;
  /** Of the partitions that this node owns. */
  channels: () => readonly ChannelStatus[];
  /** Null while it is not known. */
  backups: () => BackupOutlook | null;
}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const add = <Of>(
    { name, help, type, value }: Figure<Of>,
    labelNames: readonly string[],
    subjects: () => Iterable<readonly [labels: Record<string, string>, of: Of]>,
  ): void => {
    if (type === 'gauge') {
      new Gauge({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const [labels, of] of subjects()) {
            const now = value(of);
            if (now !== null) this.set(labels, now);
          }
        },
      });
      return;
    }
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        // A gateway that says a negative number must not cost everybody else their figures (H).
        for (const [labels, of] of subjects()) this.inc(labels, Math.max(0, value(of) ?? 0));
      },
    });
  };

  function* gateways(): Iterable<readonly [Record<string, string>, HeardGateway]> {
    for (const presence of options.gateways.gateways.values()) {
      const { site, gateway } = presence;
      yield [
        { site, gateway },
        { ...presence, up: options.gateways.silentSince(presence) === null },
      ];
    }
  }
  for (const of of gatewayFigures) {
    add({ ...of, name: `holdfast_gateway_${of.name}` }, ['site', 'gateway'], gateways);
  }
  for (const of of channelFigures) {
    add({ ...of, name: `holdfast_channel_${of.name}` }, ['channel'], () =>
      options.channels().map(status => [{ channel: status.id }, status]),
    );
  }
  for (const of of backupFigures) {
    add({ ...of, name: `holdfast_backup_${of.name}` }, [], () => {
      const outlook = options.backups();
      return outlook ? [[{}, outlook]] : [];
    });
  }
  for (const of of nodeFigures) {
    add({ ...of, name: `holdfast_${of.name}` }, [], () => [[{}, options.health()]]);
  }
  add(
    figure<boolean>('gauge', 'holdfast_server_up', '1 while the server answers this node.', Number),
    ['server'],
    () => Object.entries(options.health().servers).map(([server, { ok }]) => [{ server }, ok]),
  );
  return { contentType: registry.contentType, text: () => registry.metrics() };
}
