/**
 * One partition that this node owns under one epoch: its pumps, its sites' actors, its history writer.
 *
 *   pump ─▶ decode ─▶ site actor (live) ─▶ history queue
 *
 * Order matters: live first, so a slow Postgres holds back nobody's dashboard until the history budget is used up.
 * Invariants: D (everything carries the epoch), H (a bad batch is set aside; the next one goes on), I (a batch whose
 * checksum is wrong is never settled: the gateway sends it again), S (site and gateway come from the subject).
 */
import type { JetStreamClient } from '@nats-io/jetstream';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Batch, ReadingsBatch, ThinnedBatch } from '../protocol/batch.ts';
import { decodeBatch } from '../protocol/batch-codec.ts';
import { boundClock } from '../protocol/batch-rows.ts';
import type { GatewayId, SiteId } from '../protocol/ids.ts';
import { type Lane, lanes, parseIngestSubject, partitionOf } from '../protocol/subjects.ts';
import type { ThresholdRule } from './actors/rule.ts';
import type { Budget } from './history/budget.ts';
import type { Dictionary } from './history/dictionary.ts';
import {
  type HistoryItem,
  type HistoryWriter,
  openHistoryWriter,
  type SettledNotice,
} from './history/writer.ts';
import type { LiveState } from './live-state.ts';
import type { Claim } from './ownership.ts';
import { type Pump, type StreamMessage, startPump } from './pump.ts';
import { activateSite, type SiteActor, type TwinUpdates } from './site-actor.ts';
import type { StreamState } from './stream.ts';

export interface StreamCursor {
  readonly created: string;
  readonly sequence: number;
}

/** What the partition counts; the node adds them up. */
export interface IngestCounters {
  batches: number;
  messages: number;
  readings: number;
  quarantined: number;
  /** Batches whose bytes were damaged on the way; their gateways send them again. */
  corrupt: number;
  /** Batches refused for their wire version or partition. */
  refused: number;
  /** Rows and summaries older than the retention time. */
  expired: number;
  /** Messages that came by the backfill lane. */
  late: number;
  /** Messages in runs that came thinned. */
  thinned: number;
  /** Messages that gateways declared lost. */
  lost: number;
  /** Rows of devices beyond the bound of twins per site: in history only. */
  withoutTwin: number;
  bytes: number;
  /** Arrival at the gateway to live state, of the newest batch in the live lane, milliseconds by both clocks. */
  lagMs: number;
}

export interface PartitionShared {
  readonly pool: Pool;
  readonly dictionary: Dictionary;
  readonly live: LiveState;
  readonly stream: JetStreamClient;
  readonly budget: Budget;
  readonly logger: Logger;
  readonly partitions: number;
  readonly commitIntervalMs: number;
  readonly retentionMs: number;
  readonly counters: IngestCounters;
  locateStream(): Promise<StreamState>;
  rules(): readonly ThresholdRule[];
  publish(updates: TwinUpdates): void;
  onSettled(
    notices: readonly SettledNotice[],
    created: string,
    cursors: ReadonlyMap<string, StreamCursor>,
  ): void;
  onStaleEpoch(partition: number): void;
}

export interface Partition {
  readonly id: number;
  readonly epoch: number;
  readonly sites: ReadonlyMap<string, SiteActor>;
  /** Where history stands, by lane. */
  readonly cursors: ReadonlyMap<string, StreamCursor>;
  /** Batches waiting for history. */
  readonly queued: number;
  relocate(): void;
  /** Resolves when every site that history knew at the start is in Redis, as far as that is possible now. */
  readonly activated: Promise<unknown>;
  rewriteLive(): Promise<void>;
  close(deadlineMs: number): Promise<void>;
}

export function openPartition(shared: PartitionShared, owned: Claim): Partition {
  const { id, epoch } = owned;
  const { counters, logger } = shared;
  const sites = new Map<string, SiteActor>();
  const cursors = new Map(owned.cursors);
  const activations = new Map<string, Promise<SiteActor>>();
  let closing = false;
  let fenced = false;

  const onStaleEpoch = () => {
    if (fenced) return;
    fenced = true;
    shared.onStaleEpoch(id);
  };

  const writer: HistoryWriter = openHistoryWriter({
    pool: shared.pool,
    dictionary: shared.dictionary,
    partition: id,
    epoch,
    budget: shared.budget,
    logger,
    commitIntervalMs: shared.commitIntervalMs,
    retentionMs: shared.retentionMs,
    now: Date.now,
    onStaleEpoch,
    onExpired: rows => {
      counters.expired += rows;
    },
    onSettled(notices, moves, incidents) {
      for (const { lane, created, sequence } of moves) cursors.set(lane, { created, sequence });
      const created = (moves[0] ?? cursors.get('live'))?.created;
      if (notices.length > 0 && created !== undefined) shared.onSettled(notices, created, cursors);
      const bySite = Map.groupBy(incidents, incident => incident.site);
      for (const [site, of] of bySite) {
        void shared.live.forgetOutbox(
          site,
          of.map(incident => incident.id),
        );
      }
    },
  });

  function siteActor(site: SiteId): Promise<SiteActor> {
    const known = activations.get(site);
    if (known) return known;
    const activation = activate(site);
    activations.set(site, activation);
    // Not remembered when it failed: the next message tries again.
    activation.catch(() => activations.delete(site));
    return activation;
  }

  async function activate(site: SiteId): Promise<SiteActor> {
    const actor = await activateSite({
      site,
      epoch,
      pool: shared.pool,
      live: shared.live,
      publish: shared.publish,
      // All of it was acknowledged, so its messages reach history too, whether before or after this.
      onAhead(twins, transitions) {
        logger.info(
          { site, twins: twins.length, incidents: transitions.length },
          'site: Redis was ahead of history',
        );
        writer.enqueue({ ...emptyItem, site, gateway: NO_GATEWAY, twins, transitions });
      },
      onStaleEpoch,
    });
    sites.set(site, actor);
    return actor;
  }

  async function handle(lane: HistoryItem['lane'], message: StreamMessage): Promise<void> {
    if (fenced) return;
    const address = parseIngestSubject(message.subject);
    if (!address || partitionOf(address.site, shared.partitions) !== id) {
      counters.refused++;
      logger.warn({ subject: message.subject }, 'batch refused: this site belongs to another partition');
      // The cursor moves past it all the same.
      writer.enqueue({ ...emptyItem, lane, stream: message.stream, site: NO_SITE, gateway: NO_GATEWAY });
      return;
    }
    const { site, gateway } = address;
    const item = (content: Partial<HistoryItem> & { batch: Batch | null }): void =>
      writer.enqueue({
        ...emptyItem,
        lane,
        stream: message.stream,
        site,
        gateway,
        bytes: memoryOf(content.batch) || 256 + message.data.length,
        ...content,
      });

    const { budget } = shared;
    const limit = budget.bytesMax * (lane === 'live' ? 1 : BACKFILL_BUDGET_SHARE);
    while (!closing && budget.bytes >= limit) await budget.room(limit);
    if (closing) throw new Error('the partition is closing');
    counters.batches++;
    counters.bytes += message.data.length;
    const decoded = decodeBatch(message.data);
    switch (decoded.outcome) {
      case 'unknown-version':
        counters.refused++;
        logger.warn(
          { site, gateway, version: decoded.version },
          'batch refused: unknown wire version, upgrade the cloud',
        );
        return item({ batch: null });
      case 'corrupt':
        counters.corrupt++;
        logger.warn(
          { site, gateway, reason: decoded.reason },
          'batch damaged on the way, its gateway sends it again',
        );
        return item({ batch: null });
      case 'poison': {
        counters.quarantined += decoded.count;
        logger.warn({ site, gateway, reason: decoded.reason }, 'batch quarantined');
        const { logId, firstSequence, count, reason } = decoded;
        return item({
          batch: { settlement: 'lost', logId, firstSequence, count, reason },
          poison: { reason, bytes: message.data.slice(0, POISON_BYTES_KEPT) },
        });
      }
      case 'batch':
        break;
    }
    const { batch } = decoded;
    if (batch.settlement === 'lost') {
      counters.lost += batch.count;
      logger.warn(
        { site, gateway, sequences: batch.count, reason: batch.reason },
        'gateway declares sequences lost',
      );
      return item({ batch });
    }
    // Of a thinned run the twins see what was kept, the newest row of each device among it (C).
    const readings = batch.settlement === 'thinned' ? batch.kept : batch;
    boundClock(readings, Date.now());
    const actor = await siteActor(site);
    const { twins, transitions, withoutTwin } = actor.receive(readings, shared.rules());
    counters.withoutTwin += withoutTwin;
    count(batch, readings, lane);
    item({ batch, twins, transitions });
    await actor.room();
  }

  function count(batch: ReadingsBatch | ThinnedBatch, readings: ReadingsBatch, lane: Lane): void {
    counters.messages += batch.count;
    counters.quarantined += readings.setAside.length;
    for (const metric of readings.metrics) counters.readings += metric.values.length;
    if (batch.settlement === 'thinned') counters.thinned += batch.count;
    else if (lane === 'backfill') counters.late += batch.count;
    const newest = readings.rows.receivedAt.at(-1);
    // What waited in a gateway's buffer says nothing about how fast the cloud is.
    if (lane === 'live' && newest !== undefined) counters.lagMs = Math.max(0, Date.now() - newest);
  }

  const pumps: Pump[] = lanes.map(lane =>
    startPump({
      partition: id,
      lane,
      stream: shared.stream,
      locateStream: shared.locateStream,
      position: cursors.get(lane) ?? null,
      handle: message => handle(lane, message),
      logger,
    }),
  );

  // Dashboards see twins of sites that are silent too, even when Redis came up empty.
  const activated = Promise.all(
    owned.sites.map(site =>
      siteActor(site).catch(error =>
        logger.debug({ site, reason: error.message }, 'site: not activated yet'),
      ),
    ),
  );

  return {
    id,
    epoch,
    sites,
    cursors,
    get queued() {
      return writer.queued;
    },
    relocate() {
      for (const pump of pumps) pump.relocate();
    },
    activated,
    async rewriteLive() {
      await Promise.all([...sites.values()].map(actor => actor.rewrite()));
    },
    async close(deadlineMs) {
      closing = true;
      shared.budget.wakeAll();
      await Promise.all(pumps.map(pump => pump.stop()));
      await writer.close(deadlineMs);
    },
  };
}

/** An item that brings nothing; what it brings is laid over it. */
const emptyItem: Omit<HistoryItem, 'site' | 'gateway'> = {
  lane: 'live',
  stream: null,
  batch: null,
  poison: null,
  twins: [],
  transitions: [],
  bytes: 256,
};
/** Items without a batch have nobody that would be told. */
const NO_SITE = 'none' as SiteId;
const NO_GATEWAY = 'none' as GatewayId;

/** Of the memory for what waits for history: a backlog leaves the rest to live data. */
const BACKFILL_BUDGET_SHARE = 0.5;

const POISON_BYTES_KEPT = 64 * 1024;

/** Bytes a decoded batch holds in memory, roughly: its columns. 0 for one that has none. */
function memoryOf(batch: Batch | null): number {
  if (batch?.settlement === 'thinned') {
    const { summaries, kept } = batch;
    return (
      memoryOf(kept) + summaries.length * 44 + (summaries.devices.length + summaries.metrics.length) * 64
    );
  }
  if (batch?.settlement !== 'raw') return 0;
  let bytes = 512 + batch.rows.length * 32;
  for (const metric of batch.metrics) {
    if (metric.type === 'string') for (const text of metric.values) bytes += 32 + text.length * 2;
    else bytes += metric.values.byteLength;
  }
  for (const entry of batch.setAside) bytes += 256 + entry.payload.length;
  return bytes;
}
