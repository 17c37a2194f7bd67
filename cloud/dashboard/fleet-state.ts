/**
 * The twins this page holds, and the only way they change: `applyFrame`. Free of the DOM and of time.
 *
 *   snapshot   replaces a twin unless the page already has a newer one; the last part of a site's snapshot also removes
 *              the twins of that site which the server no longer names
 *   update     applies only when it is above the twin's (epoch, version) and builds on exactly the version held;
 *              otherwise the twin is left as it is and named in `resync`
 *
 * Keeps C (a twin never goes back), D (nothing of an older epoch shows) and F (at `twinsMax` new twins are refused and
 * counted, the ones held go on).
 */
import type { PushFrame, Twin, TwinUpdate } from './model.ts';
import { newestOf } from './model.ts';

export type Fleet = {
  readonly twins: Map<string, Twin>;
  /** Grows whenever a twin is added or removed, so that lists know when to sort again. */
  membership: number;
  /** Twins not held because of `twinsMax`. */
  refused: number;
  readonly twinsMax: number;
  /** Scopes whose snapshot has come in whole on this connection. */
  readonly complete: Set<string>;
  /** Per scope: what the parts of a snapshot under way, and updates since, have named. */
  readonly gathering: Map<string, Set<string>>;
};

export type Applied = { readonly changed: readonly Twin[]; readonly resync: readonly string[] };

const NOTHING: Applied = { changed: [], resync: [] };

export function emptyFleet(twinsMax = 100_000): Fleet {
  return {
    twins: new Map(),
    membership: 0,
    refused: 0,
    twinsMax,
    complete: new Set(),
    gathering: new Map(),
  };
}

type Versioned = { readonly epoch: number; readonly version: number };
const compareVersions = (a: Versioned, b: Versioned): number => a.epoch - b.epoch || a.version - b.version;

/** Mutates `fleet`; twins themselves are replaced, never changed. */
export function applyFrame(fleet: Fleet, frame: PushFrame): Applied {
  if (frame.type === 'snapshot') return applySnapshot(fleet, frame);
  if (frame.type === 'update') return applyUpdates(fleet, frame.twins);
  return NOTHING;
}

function applySnapshot(fleet: Fleet, frame: PushFrame & { type: 'snapshot' }): Applied {
  const { scope, part, parts, twins } = frame;
  const changed: Twin[] = [];
  const named = part === 1 ? new Set<string>() : fleet.gathering.get(scope);
  if (named !== undefined) fleet.gathering.set(scope, named);
  for (const twin of twins) {
    named?.add(twin.key);
    fleet.gathering.get(`site:${twin.site}`)?.add(twin.key);
    const held = fleet.twins.get(twin.key);
    if (held !== undefined && compareVersions(twin, held) < 0) continue;
    if (put(fleet, twin)) changed.push(twin);
  }
  if (part < parts || named === undefined) return { changed, resync: [] };

  fleet.gathering.delete(scope);
  fleet.complete.add(scope);
  removeUnnamed(fleet, scope, named);
  return { changed, resync: [] };
}

function removeUnnamed(fleet: Fleet, scope: string, named: ReadonlySet<string>): void {
  if (!scope.startsWith('site:')) return;
  const site = scope.slice('site:'.length);
  for (const twin of fleet.twins.values()) {
    if (twin.site !== site || named.has(twin.key)) continue;
    fleet.twins.delete(twin.key);
    fleet.membership += 1;
  }
}

function applyUpdates(fleet: Fleet, updates: readonly TwinUpdate[]): Applied {
  const changed: Twin[] = [];
  const resync: string[] = [];
  for (const update of updates) {
    fleet.gathering.get(`site:${update.site}`)?.add(update.key);
    const held = fleet.twins.get(update.key);
    if (held !== undefined && compareVersions(update, held) <= 0) continue;
    const base = update.since === 0 ? null : held;
    if (base === undefined || (base !== null && !follows(update, base))) {
      resync.push(update.key);
      continue;
    }
    const twin = merge(base, update);
    if (put(fleet, twin)) changed.push(twin);
  }
  return { changed, resync };
}

/** Versions count within an epoch: the same number under another epoch may stand for other content. */
const follows = (update: TwinUpdate, held: Twin): boolean =>
  update.epoch === held.epoch && update.since === held.version;

function merge(base: Twin | null, update: TwinUpdate): Twin {
  const metrics = base === null ? update.metrics : new Map([...base.metrics, ...update.metrics]);
  return {
    key: update.key,
    site: update.site,
    device: update.device,
    epoch: update.epoch,
    version: update.version,
    seenAt: update.seenAt,
    metrics,
    alerts: update.alerts ?? base?.alerts ?? new Map(),
    presence: update.presence ?? base?.presence ?? null,
    newestAt: newestOf(metrics),
  };
}

function put(fleet: Fleet, twin: Twin): boolean {
  if (!fleet.twins.has(twin.key)) {
    if (fleet.twins.size >= fleet.twinsMax) {
      fleet.refused += 1;
      return false;
    }
    fleet.membership += 1;
  }
  fleet.twins.set(twin.key, twin);
  return true;
}

/** After a cut everything is asked for anew: no snapshot under way will be finished, and none counts as had. */
export function forgetSnapshots(fleet: Fleet): void {
  fleet.gathering.clear();
  fleet.complete.clear();
}
