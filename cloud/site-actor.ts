/**
 * The shell of one site's actor: owns the twins in memory, one batch at a time, and carries out what the pure fold
 * (`actors/site.ts`) decides: live state to Redis, changed twins to the bus.
 *
 *   activate: fence ─▶ checkpoint in Postgres ⊔ Redis ─▶ serving: mailbox ─▶ fold ─▶ Redis ─▶ bus
 *                                                          └ Redis lost its fence: lease read again, fence, all written
 *
 * A twin that was idle for long is passive: only its name stays in memory, and it is read again before its next reading
 * is folded.
 *
 * Invariants: C (activation joins both states, so a twin never starts behind what was shown), D (nothing is read before
 * the fence keeps earlier owners from writing), F (writes to Redis that are under way are bounded, and so is the mailbox:
 * a lane's next batch comes when this one is folded).
 */
import type { Pool } from 'pg';
import type { Heartbeat } from '../protocol/heartbeat.ts';
import type { SiteId } from '../protocol/ids.ts';
import type { IncidentTransition } from './actors/incident.ts';
import type { RuleIndex } from './actors/rule-index.ts';
import {
  type Arrival,
  advance,
  type BatchOutcome,
  newSiteState,
  receiveBatch,
  type TraitsOf,
  type TwinChange,
  type TwinFailure,
} from './actors/site.ts';
import { mayRest, newTwin, receive, type TwinState } from './actors/twin.ts';
import type { LiveState, WriteOutcome } from './live-state.ts';
import { moveTwins } from './registry/move-twins.ts';
import { isSameStored, restoreTwin, storeTwin, updateFragment } from './twin-json.ts';

/** Changed twins of one site, as the bus carries them. */
export interface TwinUpdates {
  readonly site: SiteId;
  readonly epoch: number;
  readonly devices: readonly string[];
  /** Version each change goes on from, and arrives at. */
  readonly since: readonly number[];
  readonly versions: readonly number[];
  /** JSON of each change. */
  readonly fragments: readonly string[];
}

export interface Received {
  readonly twins: readonly TwinState[];
  readonly transitions: readonly IncidentTransition[];
  /** Rows of devices beyond the bound of twins, in history only. */
  readonly withoutTwin: number;
}

export interface SiteActor {
  readonly site: SiteId;
  /** In memory; passive ones are not among them. */
  readonly twins: ReadonlyMap<string, TwinState>;
  readonly passive: number;
  /** Twins that threw, and why. */
  readonly failures: ReadonlyMap<string, TwinFailure>;
  /** Folds one batch, after those that wait already. Rejects when a passive twin cannot be read now. */
  receive(arrival: Arrival, rules: RuleIndex, traitsOf?: TraitsOf): Promise<Received>;
  /** Judges what is due by a heartbeat, after what waits already. Rejects as `receive` does. */
  advance(gateway: string, heartbeat: Heartbeat, rules: RuleIndex, traitsOf?: TraitsOf): Promise<Received>;
  room(): Promise<void>;
  /** Redis came back empty or older: fences the site and writes every twin again. Resolves when it is tried. */
  recover(): Promise<void>;
  /**
   * What concerns the whole site, such as a dead link. It follows from no message, so nobody would find it again: people
   * hear of it when history has it, or has not taken it for some time.
   */
  tell(transition: IncidentTransition): void;
  /** Transitions that history lacks, the newest of each incident. */
  readonly unsettled: ReadonlyMap<string, IncidentTransition>;
  /** History has these incidents. */
  settled(incidents: readonly IncidentTransition[]): void;
  /** History was restored from a backup: tells it again what it may lack. */
  retell(): Promise<void>;
  /** Devices go by other names: the twins of the old ones move. Resolves when it is tried. */
  rename(aliases: ReadonlyMap<string, string>): Promise<void>;
  /** Forgets twins that were not heard for that long. Only while history has a checkpoint of all of them. */
  passivate(idleMs: number): number;
  /** Resolves when every twin is in Redis, as far as that is possible now, and dashboards hear of each change. */
  readonly live: Promise<void>;
  close(): void;
}

const WRITES_UNDER_WAY_MAX = 64;
const TOLD_REMEMBERED_MAX = 100;
/** What was over for longer is in every backup that anybody restores, or was forgotten on purpose. */
const RETOLD_MAX_MS = 30 * 86_400_000;
const REPAIR_AFTER_MS = 1000;
const TELL_SITE_AFTER_MS = 2000;
/** Twins written, or read, in one go: others get their turn in between. */
const TWINS_AT_ONCE = 2000;

export async function activateSite(options: {
  site: SiteId;
  epoch: number;
  pool: Pool;
  live: LiveState;
  publish: (updates: TwinUpdates) => void;
  /** Redis has them under our fence: they are ours to tell (D). */
  onIncidents: (transitions: readonly IncidentTransition[]) => void;
  /** Twins and incident transitions that had reached Redis but not the checkpoint in history. */
  onAhead: (twins: readonly TwinState[], transitions: readonly IncidentTransition[]) => void;
  /** Whether the lease still holds, read from Postgres. Rejects when Postgres does not say. */
  confirmLease: () => Promise<boolean>;
  onStaleEpoch: () => void;
  /** What an earlier owner may have shown is folded. */
  caughtUp: Promise<void>;
}): Promise<SiteActor> {
  const { site, epoch, pool, live } = options;
  const twins = new Map<string, TwinState>();
  const passive = new Set<string>();
  const state = newSiteState(site);
  /** Not yet in history, by id: as long as the items that wait for it (F). */
  const unsettled = new Map<string, IncidentTransition>();
  /** Of these, what Redis did not take, or lost. */
  const unwritten = new Map<string, IncidentTransition>();
  /** Of the whole site, in Redis, by id: history has some time to be the first to have it. */
  const untold = new Map<string, IncidentTransition>();
  /** The last ones that history had, by id: what Redis remembers of them is gone with Redis. */
  const told = new Map<string, IncidentTransition>();
  let closed = false;
  /** Before that, what is folded may be older than what people have seen: nobody is shown it. */
  let isLive = false;
  /** Devices that were folded until then. */
  const moved = new Set<string>();

  const fenced = await live.fenceSite(site, epoch);
  if (fenced === 'stale-epoch') {
    options.onStaleEpoch();
    throw new Error('the partition has another owner');
  }
  /** Texts of the checkpoints, until they were held against Redis. */
  const texts = new Map<string, string>();
  for (const twin of await checkpoints('all', texts)) twins.set(twin.device, twin);
  /** What Redis lacks, or has older. */
  let behind: Set<string> | 'all' = 'all';
  let merged = fenced === 'fenced' && (await mergeFromRedis());
  texts.clear();

  async function checkpoints(
    devices: readonly string[] | 'all',
    into?: Map<string, string>,
  ): Promise<TwinState[]> {
    const { rows } = await pool.query<{ device: string; state: string }>(
      'select device, state from holdfast.twin where site = $1 and ($2::text[] is null or device = any ($2))',
      [site, devices === 'all' ? null : devices],
    );
    for (const row of rows) into?.set(row.device, row.state);
    return rows.map(row => restoreTwin(site, row.device, row.state)).filter(twin => twin !== null);
  }

  /** What dashboards have seen may be ahead of the checkpoint. @returns false while Redis does not answer */
  async function mergeFromRedis(): Promise<boolean> {
    const lacking = new Set(twins.keys());
    const orphans: IncidentTransition[] = [];
    const stored = await live.loadSite(site, (device, text) => {
      const checkpoint = texts.get(device);
      // Lacking it would mean that the checkpoint is no twin: then Redis decides.
      return checkpoint !== undefined && isSameStored(checkpoint, text) && lacking.delete(device);
    });
    if (!stored) return false;
    const ahead: TwinState[] = [];
    for (const twin of stored.twins) {
      if (passive.has(twin.device)) continue;
      const known = twins.get(twin.device);
      const state = known ? join(known, twin) : twin;
      twins.set(twin.device, state);
      if (!known || twin.version > known.version) ahead.push(state);
      if (state === twin || storeTwin(state, 0) === storeTwin(twin, 0)) lacking.delete(twin.device);
    }
    for (const transition of stored.outbox) {
      if (!unsettled.has(transition.id)) unsettled.set(transition.id, transition);
      const { device, clearedAt } = transition;
      if (device === null || clearedAt !== null || passive.has(device)) continue;
      // It was written before its twin, which never was: nothing else would clear it.
      const before = twins.get(device) ?? newTwin(site, device);
      const { state: after, effects } = receive(before, { type: 'told', incident: transition });
      for (const { transition: over } of effects) unsettled.set(over.id, over);
      orphans.push(...effects.map(effect => effect.transition));
      if (after === before) continue;
      twins.set(device, after);
      lacking.add(device);
      ahead.push(after);
    }
    behind = lacking;
    // Their messages change nothing when they come again, so nothing else would bring them into the checkpoint (C).
    const toldBefore = await live.told(site);
    for (const transition of toldBefore.slice(0, TOLD_REMEMBERED_MAX).reverse()) rememberTold(transition);
    const lost = await missing(toldBefore);
    if (ahead.length + stored.outbox.length + lost.length > 0)
      options.onAhead(ahead, [...stored.outbox, ...lost, ...orphans]);
    return true;
  }

  /** Of what history had once: what it lacks, because it was restored from a backup. */
  async function missing(told: readonly IncidentTransition[]): Promise<IncidentTransition[]> {
    const since = Date.now() - RETOLD_MAX_MS;
    const recent = told.filter(({ clearedAt }) => clearedAt === null || clearedAt > since);
    if (recent.length === 0) return [];
    const { rows } = await pool.query<{ id: string; cleared: boolean }>(
      'select id, cleared_at is not null as cleared from holdfast.incident where id = any ($1)',
      [recent.map(({ id }) => id)],
    );
    const known = new Map(rows.map(({ id, cleared }) => [id, cleared]));
    return recent.filter(({ id, clearedAt }) => !known.has(id) || (clearedAt !== null && !known.get(id)));
  }

  function rememberTold(incident: IncidentTransition): void {
    // Redis may have been away when history had the end of it.
    if (incident.clearedAt === null && (told.get(incident.id)?.clearedAt ?? null) !== null) return;
    told.delete(incident.id);
    told.set(incident.id, incident);
    if (told.size > TOLD_REMEMBERED_MAX) told.delete(told.keys().next().value!);
  }

  let underWay = 0;
  let repairing: NodeJS.Timeout | undefined;
  let recovering: Promise<void> | undefined;
  let waiting: (() => void)[] = [];

  /** A twin that is ahead of its incident would keep it from ever being told: what Redis lacks of those comes with it. */
  async function write(
    changed: readonly TwinState[],
    transitions: readonly IncidentTransition[],
  ): Promise<WriteOutcome> {
    const lacking = [...unwritten.values()].filter(one => unsettled.get(one.id) === one);
    unwritten.clear();
    // Those that are new come last: the end of an incident after its beginning.
    const incidents = lacking.length === 0 ? transitions : [...lacking, ...transitions];
    underWay++;
    const outcome = await live.writeTwins(site, epoch, changed, incidents);
    underWay--;
    if (outcome !== 'written') noteUnwritten(incidents);
    if (outcome === 'stale-epoch') options.onStaleEpoch();
    if (outcome === 'unfenced') void recover();
    if (outcome === 'unavailable') repairSoon();
    if (underWay < WRITES_UNDER_WAY_MAX) {
      const woken = waiting;
      waiting = [];
      for (const wake of woken) wake();
    }
    return outcome;
  }

  function noteUnwritten(incidents: Iterable<IncidentTransition>): void {
    for (const incident of incidents) {
      if (unsettled.get(incident.id) === incident) unwritten.set(incident.id, incident);
    }
  }

  /** A write that failed though the connection stands is repeated with all that is known by then. */
  function repairSoon(): void {
    if (repairing || closed || !live.connected) return;
    repairing = setTimeout(() => {
      repairing = undefined;
      void recover();
    }, REPAIR_AFTER_MS);
    repairing.unref();
  }

  function recover(): Promise<void> {
    recovering ??= (async () => {
      try {
        // A fence that is gone says nothing about who owns the site (D).
        if (!(await options.confirmLease())) return options.onStaleEpoch();
        noteUnwritten(unsettled.values());
        const outcome = closed ? 'stale-epoch' : await live.fenceSite(site, epoch);
        if (outcome === 'unavailable') return repairSoon();
        if (outcome === 'stale-epoch') return options.onStaleEpoch();
        // A Redis that was away when the site was activated may have kept its data.
        if (!merged) merged = await mergeFromRedis();
        if (isLive) await writeAll([...twins.keys()], [...passive]);
      } catch {
        repairSoon();
      }
    })().finally(() => {
      recovering = undefined;
    });
    return recovering;
  }

  /** Each as it is when its turn comes: what changes meanwhile is written after it. */
  async function writeAll(active: readonly string[], asleep: readonly string[]): Promise<void> {
    if (unwritten.size > 0 && (await write([], [])) !== 'written') return;
    await live.remindTold(site, [...told.values()]);
    for (const names of chunks(active)) {
      const states = names.map(name => twins.get(name)).filter(twin => twin !== undefined);
      if ((await write(states, [])) !== 'written') return;
    }
    for (const names of chunks(asleep)) {
      const states = (await checkpoints(names)).filter(twin => passive.has(twin.device));
      if ((await write(states, [])) !== 'written') return;
    }
    await live.markWhole(site);
  }

  /** Reads passive twins that are about to be heard. */
  async function wake(devices: readonly string[]): Promise<void> {
    for (const twin of await checkpoints(devices)) {
      twins.set(twin.device, twin);
      passive.delete(twin.device);
    }
    // Its checkpoint cannot be read: it begins anew, as any twin that is not stored.
    for (const device of devices) passive.delete(device);
  }

  /** A rule that is new may concern every twin. */
  async function wakeForRules(rules: RuleIndex): Promise<void> {
    if (rules.version !== state.rulesVersion && passive.size > 0) await wake([...passive]);
  }

  function take({ changes, transitions, withoutTwin }: BatchOutcome): Received {
    for (const transition of transitions) unsettled.set(transition.id, transition);
    const changed = [...changes.values()];
    for (const { after } of changed) {
      twins.set(after.device, after);
      if (!isLive) moved.add(after.device);
    }
    const received = { twins: changed.map(({ after }) => after), transitions, withoutTwin };
    // Whom an incident concerns does not wait until the twins are shown.
    const shown = isLive ? changed : [];
    if (shown.length + transitions.length === 0) return received;
    const written = write(isLive ? received.twins : [], transitions);
    if (shown.length > 0) {
      const updates = updatesOf(shown);
      void written.then(outcome => {
        // Redis being away is no reason to keep dashboards waiting: it is repaired when it is back.
        if (outcome !== 'stale-epoch') options.publish(updates);
      });
    }
    tellWhenWritten(written, transitions);
    return received;
  }

  const updatesOf = (changes: readonly TwinChange[]): TwinUpdates => ({
    site,
    epoch,
    devices: changes.map(({ after }) => after.device),
    since: changes.map(({ before }) => before?.version ?? 0),
    versions: changes.map(({ after }) => after.version),
    fragments: changes.map(({ before, after }) => updateFragment(before, after, epoch)),
  });

  /** What Redis does not take is told when history has it. */
  function tellWhenWritten(written: Promise<WriteOutcome>, transitions: readonly IncidentTransition[]): void {
    if (transitions.length === 0) return;
    void written.then(outcome => {
      if (outcome === 'written') options.onIncidents(transitions);
    });
  }

  /** When history does not take it, either: with PostgreSQL away nothing changes hands. */
  async function tellAnyway(transition: IncidentTransition): Promise<void> {
    if (closed || untold.get(transition.id) !== transition) return;
    if (!(await options.confirmLease().catch(() => true)) || !untold.delete(transition.id)) return;
    options.onIncidents([transition]);
  }

  /** Redis lacks what it lost, and shows what it has: it is brought to the same state, and then everybody hears of it. */
  async function goLive(): Promise<void> {
    await options.caughtUp;
    if (closed) return;
    isLive = true;
    noteUnwritten(unsettled.values());
    await writeAll(behind === 'all' ? [...twins.keys()] : [...behind.union(moved)], []);
    // From now on no dashboard takes anything from an earlier owner (D).
    options.publish(updatesOf([]));
    for (const devices of chunks([...moved])) {
      const states = devices.map(device => twins.get(device)).filter(twin => twin !== undefined);
      options.publish(updatesOf(states.map(after => ({ before: null, after }))));
    }
    moved.clear();
  }

  let mailbox: Promise<unknown> = Promise.resolve();

  const actor: SiteActor = {
    site,
    twins,
    get passive() {
      return passive.size;
    },
    failures: state.failures,
    receive(arrival, rules, traitsOf) {
      const received = mailbox.then(async () => {
        await wakeForRules(rules);
        const { devices } = arrival.batch;
        const asleep = passive.size > 0 ? devices.filter(device => passive.has(device)) : [];
        if (asleep.length > 0) await wake(asleep);
        return take(receiveBatch(state, twins, arrival, rules, traitsOf));
      });
      mailbox = received.catch(() => {});
      return received;
    },
    advance(gateway, heartbeat, rules, traitsOf) {
      const judged = mailbox.then(async () => {
        await wakeForRules(rules);
        const first = advance(state, twins, gateway, heartbeat, rules, traitsOf);
        const received = take(first);
        if (first.passive.length === 0) return received;
        await wake(first.passive);
        const rest = take(advance(state, twins, gateway, heartbeat, rules, traitsOf));
        return {
          twins: [...received.twins, ...rest.twins],
          transitions: [...received.transitions, ...rest.transitions],
          withoutTwin: 0,
        };
      });
      mailbox = judged.catch(() => {});
      return judged;
    },
    room() {
      if (underWay < WRITES_UNDER_WAY_MAX) return Promise.resolve();
      return new Promise(resolve => waiting.push(resolve));
    },
    recover,
    unsettled,
    tell(transition) {
      unsettled.set(transition.id, transition);
      void write([], [transition]).then(outcome => {
        if (outcome !== 'written') return;
        if (unsettled.get(transition.id) !== transition) return options.onIncidents([transition]);
        untold.set(transition.id, transition);
        setTimeout(tellAnyway, TELL_SITE_AFTER_MS, transition).unref();
      });
    },
    settled(incidents) {
      for (const incident of incidents) {
        rememberTold(incident);
        const known = unsettled.get(incident.id);
        // It may have been cleared since.
        if (known && known.clearedAt === incident.clearedAt) unsettled.delete(incident.id);
      }
      const ready = incidents.filter(({ id, clearedAt }) => untold.get(id)?.clearedAt === clearedAt);
      for (const { id } of ready) untold.delete(id);
      if (ready.length > 0) options.onIncidents(ready);
    },
    async retell() {
      const lost = await missing([...told.values(), ...(await live.told(site))]);
      options.onAhead([...twins.values()], [...lost, ...unsettled.values()]);
    },
    rename(aliases) {
      const renamed = mailbox.then(async () => {
        const asleep = [...passive].filter(device => aliases.has(device));
        if (asleep.length > 0) await wake(asleep);
        const { twins: moved, gone } = moveTwins(twins, aliases);
        if (gone.length === 0) return;
        const changes = new Map(moved.map(after => [after.device, { before: null, after }]));
        const received = take({ changes, transitions: [], withoutTwin: 0 });
        for (const device of gone) twins.delete(device);
        options.onAhead(received.twins, []);
        await live.removeTwins(site, epoch, gone);
      });
      mailbox = renamed.catch(() => {});
      return renamed;
    },
    passivate(idleMs) {
      let newest = 0;
      for (const twin of twins.values()) newest = Math.max(newest, twin.seenAt);
      let forgotten = 0;
      for (const twin of twins.values()) {
        if (twin.seenAt > newest - idleMs || !mayRest(twin)) continue;
        twins.delete(twin.device);
        passive.add(twin.device);
        forgotten++;
      }
      return forgotten;
    },
    live: goLive(),
    close() {
      closed = true;
      clearTimeout(repairing);
    },
  };
  return actor;
}

const join = (known: TwinState, other: TwinState): TwinState =>
  receive(known, { type: 'merge', other }).state;

function* chunks<T>(items: readonly T[]): Generator<readonly T[]> {
  for (let start = 0; start < items.length; start += TWINS_AT_ONCE) {
    yield items.slice(start, start + TWINS_AT_ONCE);
  }
}
