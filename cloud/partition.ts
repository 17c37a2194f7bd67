/**
 * One partition that this node owns under one epoch: its pumps, its sites' actors, its history writer.
 *
 *   pump ─▶ decode ─▶ site actor (live) ─▶ history queue
 *
 * Order matters: live first, so a slow Postgres holds back nobody's dashboard until the history budget is used up.
 * Invariants: D (everything carries the epoch), H (a bad batch is set aside; the next one goes on), I (a batch whose
 * checksum is wrong is never settled: the gateway sends it again), S (site and gateway come from the subject).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { JetStreamClient } from '@nats-io/jetstream';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Batch, ReadingsBatch, ThinnedBatch } from '../protocol/batch.ts';
import { decodeBatch } from '../protocol/batch-codec.ts';
import { boundClock } from '../protocol/batch-rows.ts';
import { boundHeartbeat, heartbeatIn } from '../protocol/heartbeat.ts';
import type { GatewayId, SiteId } from '../protocol/ids.ts';
import {
  type IngestAddress,
  type Lane,
  lanes,
  parseIngestSubject,
  partitionOf,
} from '../protocol/subjects.ts';
import type { RuleIndex } from './actors/rule-index.ts';
import type { TwinFailure } from './actors/site.ts';
import type { BackfillGate } from './backfill-gate.ts';
import type { Claim } from './cluster/leases.ts';
import type { GatewayLink } from './gateway-link.ts';
import type { Budget } from './history/budget.ts';
import type { Dictionary } from './history/dictionary.ts';
import {
  type HistoryItem,
  type HistoryWriter,
  openHistoryWriter,
  type SettledNotice,
} from './history/writer.ts';
import type { Delivery } from './incidents/delivery.ts';
import { openLinkWatch } from './link-watch.ts';
import type { LiveState } from './live-state.ts';
import { type Pump, type StreamMessage, startPump } from './pump.ts';
import { applyRegistry, applyRegistryToThinned } from './registry/apply.ts';
import type { Registry } from './registry/registry.ts';
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
  readonly backfillGate: BackfillGate;
  readonly logger: Logger;
  readonly partitions: number;
  readonly commitIntervalMs: number;
  readonly retentionMs: number;
  readonly counters: IngestCounters;
  locateStream(): Promise<StreamState>;
  rules(): RuleIndex;
  readonly registry: Pick<Registry, 'site' | 'of'>;
  publish(updates: TwinUpdates): void;
  onSettled(
    notices: readonly SettledNotice[],
    created: string,
    cursors: ReadonlyMap<string, StreamCursor>,
  ): void;
  readonly delivery: Pick<Delivery, 'deliverNow' | 'workOff' | 'release'>;
  /** Whether this node still owns the partition, read from Postgres. Rejects when Postgres does not say. */
  confirmLease(partition: number, epoch: number): Promise<boolean>;
  onStaleEpoch(partition: number, epoch: number): void;
}

export interface Partition {
  readonly id: number;
  readonly epoch: number;
  readonly sites: ReadonlyMap<string, SiteActor>;
  /** Where history stands, by lane. */
  readonly cursors: ReadonlyMap<string, StreamCursor>;
  /** Twins that threw, as `site/device`, and why. */
  failures(): Iterable<{ readonly twin: string; readonly failure: TwinFailure }>;
  /** Batches waiting for history. */
  readonly queued: number;
  /** Why PostgreSQL takes none of them; null while it does. */
  readonly historyTrouble: string | null;
  relocate(): void;
  /** Resolves when every site that history knew at the start is in Redis, as far as that is possible now. */
  readonly activated: Promise<unknown>;
  /** Redis came back: every site is fenced and written again. */
  recoverLive(): Promise<void>;
  /** Sites that have lost their fence, as a Redis that was emptied under a living connection leaves them, are written again. */
  checkFences(): Promise<void>;
  /** Incidents of gateways whose link is dead. */
  judgeLinks(gateways: Pick<GatewayLink, 'gateways' | 'silentSince'>): Promise<void>;
  /** History was restored from a backup: tells it again what it may lack. */
  retell(): Promise<void>;
  /** What people know of the devices of these sites has changed. */
  onRegistryChange(sites: readonly string[]): Promise<void>;
  /** Forgets twins that were idle for that long. @returns how many */
  passivate(idleMs: number): number;
  close(deadlineMs: number): Promise<void>;
}

export function openPartition(shared: PartitionShared, owned: Claim): Partition {
  const { id, epoch } = owned;
  const { counters, logger } = shared;
  const sites = new Map<string, SiteActor>();
  const cursors = new Map(owned.cursors);
  const activations = new Map<string, Promise<SiteActor>>();
  const links = openLinkWatch(shared.pool);
  let closing = false;
  let fenced = false;
  /** What was in the stream when the partition became ours is folded, or takes too long. */
  const caughtUp = Promise.withResolvers<void>();
  const patience = setTimeout(caughtUp.resolve, CATCH_UP_MAX_MS);
  patience.unref();

  const onStaleEpoch = () => {
    if (fenced) return;
    fenced = true;
    shared.onStaleEpoch(id, epoch);
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
      if (incidents.length > 0) void shared.delivery.workOff();
      for (const [site, of] of bySite) {
        sites.get(site)?.settled(of);
        void shared.live.forgetOutbox(site, of);
      }
    },
  });

  /** The start of PostgreSQL that has been told what it may lack. */
  let toldServer = serverStarted();
  function serverStarted(): Promise<string | null> {
    return shared.dictionary.serverStarted().catch(() => null);
  }
  const retell = async () => {
    toldServer = serverStarted();
    await Promise.all([...sites.values()].map(actor => actor.retell()));
  };
  /** The next owner does not know what a history from a backup lacks. */
  async function retellIfRestarted(): Promise<void> {
    const told = await toldServer;
    const { rows } = await shared.pool.query<{ started: string }>(
      'select holdfast.server_started() as started',
    );
    if (told !== null && rows[0]!.started !== told) await retell();
  }

  const traitsOf = (site: SiteId) => (device: string) => shared.registry.of(site, device);

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
      onIncidents: transitions => shared.delivery.deliverNow(id, epoch, transitions),
      // All of it was acknowledged, so its messages reach history too, whether before or after this.
      onAhead(twins, transitions) {
        logger.info(
          { site, twins: twins.length, incidents: transitions.length },
          'site: Redis was ahead of history',
        );
        writer.enqueue({ ...emptyItem, site, gateway: NO_GATEWAY, twins, transitions });
      },
      confirmLease: () => shared.confirmLease(id, epoch),
      onStaleEpoch,
      caughtUp: caughtUp.promise,
    });
    if (closing) actor.close();
    sites.set(site, actor);
    await actor.rename(shared.registry.site(site)?.aliases ?? new Map());
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
    const { budget } = shared;
    const limit = budget.bytesMax * (lane === 'live' ? 1 : BACKFILL_BUDGET_SHARE);
    while (!closing && budget.bytes >= limit) await budget.room(limit);
    if (closing) throw new Error('the partition is closing');
    if (lane === 'backfill') return shared.backfillGate.pass(() => take(lane, message, address));
    shared.backfillGate.noteLive();
    return take(lane, message, address);
  }

  async function take(
    lane: HistoryItem['lane'],
    message: StreamMessage,
    { site, gateway }: IngestAddress,
  ): Promise<void> {
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
      case 'heartbeat': {
        const told = heartbeatIn(decoded.heartbeat, message.stream.created);
        const heartbeat = boundHeartbeat(told, Date.now());
        const actor = await siteActor(site);
        const { twins, transitions } = await actor.advance(
          gateway,
          heartbeat,
          shared.rules(),
          traitsOf(site),
        );
        item({ batch: null, twins, transitions });
        return actor.room();
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
    boundClock(batch.settlement === 'thinned' ? batch.kept : batch, Date.now());
    const names = shared.registry.site(site);
    const applied =
      batch.settlement === 'thinned' ? applyRegistryToThinned(batch, names) : applyRegistry(batch, names);
    const readings = applied.settlement === 'thinned' ? applied.kept : applied;
    const actor = await siteActor(site);
    const { twins, transitions, withoutTwin } = await actor.receive(
      { batch: readings, gateway, lane },
      shared.rules(),
      traitsOf(site),
    );
    counters.withoutTwin += withoutTwin;
    count(applied, readings, lane);
    item({ batch: applied, twins, transitions });
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
      onCaughtUp: lane === 'live' ? caughtUp.resolve : () => {},
      logger,
    }),
  );

  // Dashboards see twins of sites that are silent too, even when Redis came up empty.
  const activated = Promise.all(
    owned.sites.map(site =>
      siteActor(site)
        .then(actor => actor.live)
        .catch(error => logger.debug({ site, reason: error.message }, 'site: not activated yet')),
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
    get historyTrouble() {
      return writer.trouble;
    },
    relocate() {
      for (const pump of pumps) pump.relocate();
    },
    activated,
    *failures() {
      for (const [site, actor] of sites) {
        for (const [device, failure] of actor.failures) yield { twin: `${site}/${device}`, failure };
      }
    },
    async recoverLive() {
      await Promise.all([...sites.values()].map(actor => actor.recover()));
    },
    async checkFences() {
      const epochs = new Map([...sites.keys()].map(site => [site, epoch]));
      for (const site of await shared.live.unfenced(epochs)) await sites.get(site)?.recover();
    },
    async judgeLinks({ gateways, silentSince }) {
      for (const presence of gateways.values()) {
        if (partitionOf(presence.site, shared.partitions) !== id) continue;
        const silent = silentSince(presence);
        // A gateway that never had a message has no site to speak of.
        const actor = sites.get(presence.site);
        if (!actor) continue;
        const transition = await links.judge(presence, silent, actor.unsettled);
        if (!transition || closing) continue;
        actor.tell(transition);
        writer.enqueue({
          ...emptyItem,
          site: presence.site,
          gateway: NO_GATEWAY,
          transitions: [transition],
        });
      }
    },
    retell,
    async onRegistryChange(changed) {
      for (const site of changed)
        await sites.get(site)?.rename(shared.registry.site(site)?.aliases ?? new Map());
    },
    passivate(idleMs) {
      // A twin is forgotten only when its last state is in history.
      if (writer.queued > 0) return 0;
      return [...sites.values()].reduce((sum, actor) => sum + actor.passivate(idleMs), 0);
    },
    async close(deadlineMs) {
      closing = true;
      clearTimeout(patience);
      shared.budget.wakeAll();
      const told = fenced ? null : Promise.race([retellIfRestarted().catch(() => {}), sleep(deadlineMs)]);
      await Promise.all([told, ...pumps.map(pump => pump.stop())]);
      await writer.close(deadlineMs);
      // What is under way for longer may be told twice, under one id.
      if (!fenced) await Promise.race([shared.delivery.release(id), sleep(RELEASE_DELIVERY_MS)]);
      for (const actor of sites.values()) actor.close();
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

/** A partition that has so much to catch up with shows what it has. */
const CATCH_UP_MAX_MS = 5000;

/** Of the memory for what waits for history: a backlog leaves the rest to live data. */
const BACKFILL_BUDGET_SHARE = 0.5;

const RELEASE_DELIVERY_MS = 300;

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
