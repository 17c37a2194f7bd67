/**
 * The shell of one site's actor: owns the twins in memory, one batch at a time, and carries out what the pure fold
 * (`actors/site.ts`) decides: live state to Redis, changed twins to the bus.
 *
 *   activate: checkpoint in Postgres ⊔ Redis ─▶ serving: batch ─▶ fold ─▶ Redis ─▶ bus
 *
 * Invariants: C (activation joins both states, so a twin never starts behind what was shown), D (a write under an
 * old epoch ends the node's ownership), F (writes to Redis that are under way are bounded).
 */
import type { Pool } from 'pg';
import type { ReadingsBatch } from '../protocol/batch.ts';
import type { SiteId } from '../protocol/ids.ts';
import type { ThresholdRule } from './actors/rule.ts';
import { receiveBatch } from './actors/site.ts';
import { type IncidentTransition, receive, type TwinState } from './actors/twin.ts';
import type { LiveState } from './live-state.ts';
import { restoreTwin, updateFragment } from './twin-json.ts';

export interface TwinUpdates {
  readonly site: SiteId;
  readonly epoch: number;
  /** One entry per changed twin, all arrays of the same length. */
  readonly devices: readonly string[];
  readonly since: readonly number[];
  readonly versions: readonly number[];
  /** JSON of each change, ready for the wire. */
  readonly fragments: readonly string[];
}

export interface SiteActor {
  readonly site: SiteId;
  readonly twins: ReadonlyMap<string, TwinState>;
  /** Folds a batch. Resolves when there is room for the next one. */
  receive(
    batch: ReadingsBatch,
    rules: readonly ThresholdRule[],
  ): {
    twins: readonly TwinState[];
    transitions: readonly IncidentTransition[];
    /** Rows of devices beyond the bound of twins, in history only. */
    withoutTwin: number;
  };
  room(): Promise<void>;
  /** Writes every twin again, for a Redis that came back empty or older. Resolves when it is tried. */
  rewrite(): Promise<void>;
}

const WRITES_UNDER_WAY_MAX = 64;
const REPAIR_AFTER_MS = 1000;

export async function activateSite(options: {
  site: SiteId;
  epoch: number;
  pool: Pool;
  live: LiveState;
  publish: (updates: TwinUpdates) => void;
  /** Twins and incident transitions that had reached Redis but not the checkpoint in history. */
  onAhead: (twins: readonly TwinState[], transitions: readonly IncidentTransition[]) => void;
  onStaleEpoch: () => void;
}): Promise<SiteActor> {
  const { site, epoch, pool, live } = options;
  const twins = new Map<string, TwinState>();
  const { rows } = await pool.query<{ device: string; state: string }>(
    'select device, state from holdfast.twin where site = $1',
    [site],
  );
  for (const { device, state } of rows) {
    const twin = restoreTwin(site, device, state);
    if (twin) twins.set(device, twin);
  }
  let merged = await mergeFromRedis();

  /** What dashboards have seen may be ahead of the checkpoint. @returns false while Redis does not answer */
  async function mergeFromRedis(): Promise<boolean> {
    const stored = await live.loadSite(site);
    if (!stored) return false;
    const ahead: TwinState[] = [];
    for (const twin of stored.twins) {
      const known = twins.get(twin.device);
      const state = known ? receive(known, { type: 'merge', other: twin }).state : twin;
      twins.set(twin.device, state);
      if (!known || twin.version > known.version) ahead.push(state);
    }
    // Their messages change nothing when they come again, so nothing else would bring them into the checkpoint (C).
    if (ahead.length + stored.outbox.length > 0) options.onAhead(ahead, stored.outbox);
    return true;
  }

  let underWay = 0;
  let repairing: NodeJS.Timeout | undefined;
  let waiting: (() => void)[] = [];

  function write(
    changed: readonly TwinState[],
    transitions: readonly IncidentTransition[],
    then: () => void,
  ) {
    underWay++;
    void live.writeTwins(site, epoch, changed, transitions).then(outcome => {
      underWay--;
      // Redis being away is no reason to keep dashboards waiting: it is repaired when it is back.
      if (outcome === 'stale-epoch') options.onStaleEpoch();
      else then();
      if (outcome === 'unavailable') repairSoon();
      if (underWay < WRITES_UNDER_WAY_MAX) {
        const woken = waiting;
        waiting = [];
        for (const wake of woken) wake();
      }
    });
  }

  /** A write that failed though the connection stands is repeated with all that is known by then. */
  function repairSoon(): void {
    if (repairing || !live.connected) return;
    repairing = setTimeout(() => {
      repairing = undefined;
      actor.rewrite().catch(() => {});
    }, REPAIR_AFTER_MS);
    repairing.unref();
  }

  const actor: SiteActor = {
    site,
    twins,
    receive(batch, rules) {
      const { changes, transitions, withoutTwin } = receiveBatch(site, twins, batch, rules);
      const changed: TwinState[] = [];
      const updates = { devices: [] as string[], since: [] as number[], versions: [] as number[] };
      const fragments: string[] = [];
      for (const { before, after } of changes.values()) {
        twins.set(after.device, after);
        changed.push(after);
        updates.devices.push(after.device);
        updates.since.push(before?.version ?? 0);
        updates.versions.push(after.version);
        fragments.push(updateFragment(before, after, epoch));
      }
      if (changed.length > 0) {
        write(changed, transitions, () => options.publish({ site, epoch, ...updates, fragments }));
      }
      return { twins: changed, transitions, withoutTwin };
    },
    room() {
      if (underWay < WRITES_UNDER_WAY_MAX) return Promise.resolve();
      return new Promise(resolve => waiting.push(resolve));
    },
    async rewrite() {
      // A Redis that was away when the site was activated may have kept its data.
      if (!merged) merged = await mergeFromRedis();
      await new Promise<void>(resolve => write([...twins.values()], [], resolve));
    },
  };
  // Redis lacks what it lost, and shows what it has: bring it to the same state.
  if (twins.size > 0) await actor.rewrite();
  return actor;
}
