/** A gateway's state as Prometheus text. Pure. */
import type { GatewayState } from './state.ts';

type Figure = number | boolean | null | undefined;
interface Family {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  /** Null: not known, and left out. */
  readonly values: readonly (readonly [labels: Readonly<Record<string, string>>, value: Figure])[];
}

export function asMetrics(state: GatewayState): string {
  const of = { site: state.site, gateway: state.gateway };
  return families(state)
    .map(({ name, type, help, values }) => {
      const lines = values
        .filter(([, value]) => value !== null && value !== undefined)
        .map(([labels, value]) => `holdfast_edge_${name}${labelsOf({ ...of, ...labels })} ${Number(value)}`);
      if (lines.length === 0) return '';
      const head = [`# HELP holdfast_edge_${name} ${help}`, `# TYPE holdfast_edge_${name} ${type}`];
      return `${[...head, ...lines].join('\n')}\n`;
    })
    .join('');
}

function families({ report, disk, link, startedAt, residentBytes }: GatewayState): Family[] {
  const one = (type: Family['type'], name: string, help: string, value: Figure): Family => ({
    name,
    type,
    help,
    values: [[{}, value]],
  });
  const gauge = one.bind(null, 'gauge');
  const counter = one.bind(null, 'counter');
  const inSeconds = (ms: number | null) => (ms === null ? null : ms / 1000);
  const perLane = (name: string, help: string, of: 'batches' | 'messages' | 'bytes'): Family => ({
    name,
    type: 'counter',
    help,
    values: Object.entries(link.sent).map(([lane, sent]) => [{ lane }, sent[of]]),
  });
  return [
    gauge('start_time_seconds', 'When the process started, since 1970.', startedAt / 1000),
    gauge('resident_bytes', 'Memory of the process.', residentBytes),
    gauge('broker_connected', 'Whether the broker lets it subscribe.', report.broker.connected),
    gauge('active', 'Whether it takes messages, or stands by.', report.role === 'active'),
    gauge('cloud_connected', 'Whether the cloud has answered on this connection.', link.connected),
    gauge('buffer_bytes', 'Bytes of the disk buffer.', report.bufferBytes),
    gauge('buffer_bytes_max', 'Its bound.', report.bufferBytesMax),
    gauge('buffer_full', 'Whether it refuses messages for want of space.', disk.full),
    gauge('unsettled_messages', 'Messages on disk that history has not settled.', report.unsettledMessages),
    gauge('waiting_messages', 'Those of them that are not in the stream.', link.waitingMessages),
    gauge(
      'oldest_unsettled_seconds',
      'Arrival of the oldest unsettled message, since 1970.',
      inSeconds(report.oldestUnsettledAt),
    ),
    gauge('wire_bytes_left', 'What the waiting messages still cost on the wire.', report.wireBytesLeft),
    gauge('full_in_seconds', 'Until the buffer is full.', report.forecast.fullInSeconds),
    gauge('drained_in_seconds', 'Until nothing waits any more.', report.forecast.drainedInSeconds),
    counter('messages_total', 'Messages taken from the broker.', report.messages),
    counter('dropped_total', 'Messages of QoS 0 dropped at a full buffer.', report.dropped),
    gauge('thinned_messages', 'Messages on disk of which only a summary is left.', report.thinnedMessages),
    gauge('lost_messages', 'Messages that cannot be read any more.', report.lostMessages),
    counter('write_errors_total', 'Groups that the disk did not take at once.', disk.writeErrors),
    gauge('sync_seconds', 'Write and fdatasync of a group, 99th percentile.', disk.fsyncMs.p99 / 1000),
    counter('syncs_total', 'Groups written.', disk.fsyncs),
    counter('wire_bytes_total', 'Bytes on the wire to the cloud, both ways.', link.wireBytes),
    perLane('sent_batches_total', 'Batches published.', 'batches'),
    perLane('sent_messages_total', 'Messages in them.', 'messages'),
    perLane('sent_bytes_total', 'Bytes of the batches alone.', 'bytes'),
    gauge('budget_bytes_max', 'What a metered link may carry in its period.', report.dataBudget?.bytesMax),
    gauge('budget_bytes_used', 'What it has carried in this period.', report.dataBudget?.bytesUsed),
    gauge('gather_seconds', 'How far apart live batches leave.', link.allowance.gatherMs / 1000),
  ];
}

function labelsOf(labels: Readonly<Record<string, string>>): string {
  // Names of sites, gateways and lanes hold nothing that would need an escape.
  return `{${Object.entries(labels)
    .map(([name, value]) => `${name}="${value}"`)
    .join(',')}}`;
}
