/**
 * The site actor's fold: one batch or one heartbeat of one gateway over the site's twins, pure but for the index of timers
 * and the clocks in `SiteState`, which hold nothing that the twins and the next heartbeats do not say again.
 *
 *   batch     ──▶ per row: twin.receive      ──▶ changed twins + incident transitions
 *   heartbeat ──▶ per twin that is due: the same
 *
 * A twin whose fold throws, which is a bug of ours, goes on from its last state without that message; when it throws again
 * it is set aside: its readings are in history only, until the site is activated anew.
 *
 * Invariants: C (through `twin.ts`), F (twins per site are bounded: beyond the bound a new device is in history
 * only, and counted), H (one twin's failure is its own).
 */
import { kinds, type ReadingsBatch } from '../../protocol/batch.ts';
import { correctedAt, forEachRow } from '../../protocol/batch-rows.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import type { Lane } from '../../protocol/subjects.ts';
import { cameLate, heardHeartbeat, type JudgedClock, type SiteClocks } from './clock.ts';
import type { IncidentTransition } from './incident.ts';
import { type Interner, newInterner } from './interner.ts';
import type { Traits } from './rule.ts';
import type { RuleIndex } from './rule-index.ts';
import { file, isFiled, newTimers, type Timers, takeDue } from './timers.ts';
import {
  LATE_AFTER_MS,
  newTwin,
  nextLooks,
  receive,
  type TwinMessage,
  type TwinOutcome,
  type TwinState,
} from './twin.ts';

export interface SiteState {
  readonly site: string;
  readonly clocks: SiteClocks;
  /** By log. */
  readonly stretches: Map<string, Stretch>;
  timers: Timers;
  /** Version of the rules that the timers are for. */
  rulesVersion: number;
  readonly names: Interner;
  /** Why twins threw, by device. */
  readonly failures: Map<string, TwinFailure>;
}

/** What the live lane brought of a log, as far back as nothing is missing in it. */
interface Stretch {
  readonly begin: number;
  /** The sequence behind its end. */
  readonly end: number;
  /** When its first message arrived, by the gateway's clock. */
  readonly since: number;
}

export interface TwinFailure {
  readonly reason: string;
  /** It threw twice. */
  readonly setAside: boolean;
}

export interface TwinChange {
  /** Null when the twin is new. */
  readonly before: TwinState | null;
  readonly after: TwinState;
}

export interface BatchOutcome {
  /** By device; twins that did not change are absent. */
  readonly changes: ReadonlyMap<string, TwinChange>;
  readonly transitions: readonly IncidentTransition[];
  /** Rows of devices beyond the bound. */
  readonly withoutTwin: number;
}

export interface AdvanceOutcome extends BatchOutcome {
  /** Devices that are due and whose twins are not in memory: to be loaded, and the heartbeat told again. */
  readonly passive: readonly string[];
}

/** A batch on its way in. */
export interface Arrival {
  readonly batch: ReadingsBatch;
  readonly gateway: string;
  readonly lane: Lane;
}

/** What the registry knows of a device of the site; null: nothing. */
export type TraitsOf = (device: string) => Traits | null;

export const TWINS_PER_SITE_MAX = 250_000;
/** Logs of one site that are followed; of one that is forgotten a new stretch begins (F). */
const STRETCHES_MAX = 256;
/** For so long after a stretch has begun, a device that was heard through another log before may have a gap there. */
const NEW_STRETCH_MS = 120_000;
/** When what is due cannot be judged yet: the gateway hears nothing, or has heard for too short. */
const LOOK_AGAIN_MS = 5000;
/** Twins looked at for one heartbeat: some 30 ms. A site where more are due has the others looked at with the next (F). */
const LOOKS_MAX = 10_000;

const nothingKnown: TraitsOf = () => null;

export const newSiteState = (site: string): SiteState => ({
  site,
  clocks: new Map(),
  stretches: new Map(),
  timers: newTimers(),
  rulesVersion: 0,
  names: newInterner(),
  failures: new Map(),
});

/**
 * Files a twin's timers: of each one that was loaded, or whose device has other traits now.
 * @param twin as it was stored
 */
export function watchTwin(state: SiteState, twin: TwinState, rules: RuleIndex, traits: Traits | null): void {
  for (const { gateway, dueMs } of nextLooks(twin, rules.of(state.site, twin.device, traits))) {
    file(state.timers, gateway, twin.device, dueMs);
  }
}

/** Folds a batch. The caller puts `changes` into `twins` before the next call. */
export function receiveBatch(
  state: SiteState,
  twins: ReadonlyMap<string, TwinState>,
  { batch, gateway: from, lane }: Arrival,
  rules: RuleIndex,
  traitsOf: TraitsOf = nothingKnown,
): BatchOutcome {
  const { site } = state;
  const fold = newFold(state, twins, rules, traitsOf);
  let withoutTwin = 0;
  const gateway = state.names.of(from);
  const log = state.names.of(batch.logId);
  const stretch = lane === 'live' ? goesOn(state.stretches, log, batch) : null;

  const { rows } = batch;
  forEachRow(batch, ({ row, names, values }) => {
    const device = batch.devices[rows.device[row]!]!;
    const known = fold.twin(device);
    if ((!known && fold.size >= TWINS_PER_SITE_MAX) || state.failures.get(device)?.setAside) {
      withoutTwin++;
      return;
    }
    const receivedAt = rows.receivedAt[row]!;
    fold.apply(known ?? newTwin(site, device), !known, {
      type: 'reading',
      rules: rules.of(site, device, traitsOf(device)),
      reading: {
        at: correctedAt(rows.at[row]!, receivedAt),
        receivedAt,
        gateway,
        lane,
        stretch: stretch?.begin ?? 0,
        isNewStretch: stretch !== null && receivedAt - stretch.since < NEW_STRETCH_MS,
        isLate: cameLate(state.clocks, gateway, receivedAt, LATE_AFTER_MS),
        log,
        sequence: batch.firstSequence + rows.sequenceOffset[row]!,
        element: rows.element[row]!,
        kind: kinds[rows.kind[row]!] ?? 'telemetry',
        metrics: state.names.all(names),
        values,
      },
    });
  });
  fileChanged(state, fold.changes, rules, traitsOf);
  return { changes: fold.changes, transitions: fold.transitions, withoutTwin };
}

/**
 * Judges what has become due by a gateway's heartbeat. The caller puts `changes` into `twins` before the next call.
 * @param heartbeat bounded by `boundHeartbeat`
 */
export function advance(
  state: SiteState,
  twins: ReadonlyMap<string, TwinState>,
  from: string,
  heartbeat: Heartbeat,
  rules: RuleIndex,
  traitsOf: TraitsOf = nothingKnown,
): AdvanceOutcome {
  const fold = newFold(state, twins, rules, traitsOf);
  const passive: string[] = [];
  const judged = heardHeartbeat(state.clocks, state.names.of(from), heartbeat, [
    ...state.timers.wheels.keys(),
  ]);
  for (const [gateway, clock] of judged) judgeDue(gateway, clock);

  function judgeDue(gateway: string, clock: JudgedClock): void {
    for (const device of takeDue(state.timers, gateway, clock.completeUntil, LOOKS_MAX)) {
      const known = fold.twin(device);
      if (!known) {
        passive.push(device);
        file(state.timers, gateway, device, clock.completeUntil);
        continue;
      }
      const ofTwin = rules.of(state.site, device, traitsOf(device));
      let looks = nextLooks(known, ofTwin);
      // It was heard since it was filed: most are.
      if (looks.some(look => look.gateway === gateway && look.dueMs <= clock.completeUntil)) {
        const after = fold.apply(known, false, { type: 'clock', gateway, clock, rules: ofTwin });
        looks = nextLooks(after, ofTwin);
      }
      for (const look of looks) {
        const soonestMs = look.gateway === gateway ? clock.completeUntil + LOOK_AGAIN_MS : 0;
        file(
          state.timers,
          look.gateway,
          device,
          look.dueMs > clock.completeUntil ? look.dueMs : Math.max(look.dueMs, soonestMs),
        );
      }
    }
  }
  return { changes: fold.changes, transitions: fold.transitions, withoutTwin: 0, passive };
}

/** @returns the stretch that the batch belongs to */
function goesOn(
  stretches: Map<string, Stretch>,
  log: string,
  { firstSequence, count, rows }: ReadingsBatch,
): Stretch {
  const known = stretches.get(log);
  const isPart = known !== undefined && firstSequence <= known.end;
  const stretch: Stretch = {
    begin: isPart ? known.begin : firstSequence,
    end: Math.max(known?.end ?? 0, firstSequence + count),
    since: isPart ? known.since : (rows.receivedAt[0] ?? 0),
  };
  if (!known && stretches.size >= STRETCHES_MAX) stretches.delete(stretches.keys().next().value!);
  stretches.set(log, stretch);
  return stretch;
}

/** Changes of several messages to several twins, as they add up. */
function newFold(
  state: SiteState,
  twins: ReadonlyMap<string, TwinState>,
  rules: RuleIndex,
  traitsOf: TraitsOf,
) {
  const changes = new Map<string, TwinChange>();
  const transitions: IncidentTransition[] = [];
  let created = 0;
  const fold = {
    changes,
    transitions,
    get size() {
      return twins.size + created;
    },
    twin: (device: string): TwinState | undefined => changes.get(device)?.after ?? twins.get(device),
    /** @returns the twin afterwards */
    apply(known: TwinState, isNew: boolean, message: TwinMessage): TwinState {
      const { state: after, effects } = supervised(state, known, message);
      if (after === known) return known;
      if (isNew) created++;
      const before = changes.has(known.device) ? changes.get(known.device)!.before : isNew ? null : known;
      changes.set(known.device, { before, after });
      for (const effect of effects) transitions.push(effect.transition);
      return after;
    },
  };
  // Rules that were never read say nothing about the incidents that are open.
  if (rules.version !== state.rulesVersion && rules.version > 0) {
    state.rulesVersion = rules.version;
    state.timers = newTimers();
    for (const twin of twins.values()) {
      const after = fold.apply(twin, false, { type: 'rules', index: rules });
      watchTwin(state, after, rules, traitsOf(twin.device));
    }
  }
  return fold;
}

/** States are values: the last one that was reached is the one that is stored, and what it goes on from. */
function supervised(state: SiteState, known: TwinState, message: TwinMessage): TwinOutcome {
  const unchanged = { state: known, effects: [] };
  const before = state.failures.get(known.device);
  if (before?.setAside) return unchanged;
  try {
    return receive(known, message);
  } catch (error) {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    state.failures.set(known.device, { reason, setAside: before !== undefined });
    return unchanged;
  }
}

/** A device that is heard again lies in its bucket already: only what its rules have to remember may be due earlier. */
function fileChanged(
  state: SiteState,
  changes: ReadonlyMap<string, TwinChange>,
  rules: RuleIndex,
  traitsOf: TraitsOf,
): void {
  for (const { before, after } of changes.values()) {
    const gateway = after.heard?.gateway;
    const alive =
      before !== null &&
      gateway !== undefined &&
      before.heard?.gateway === gateway &&
      before.memory === after.memory &&
      before.alerts === after.alerts &&
      before.metrics.size === after.metrics.size;
    if (alive && isFiled(state.timers, gateway, after.device)) continue;
    const ofTwin = rules.of(state.site, after.device, traitsOf(after.device));
    if (ofTwin.isEmpty && after.memory.late.size === 0) continue;
    for (const look of nextLooks(after, ofTwin)) file(state.timers, look.gateway, after.device, look.dueMs);
  }
}
