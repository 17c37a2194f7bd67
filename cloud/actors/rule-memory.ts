/**
 * What a twin's rules have to remember, as values; part of the twin's stored state. Most twins have nothing: they share
 * `NO_MEMORY` and its empty maps.
 *
 *   alerts       rule → the incident that is open
 *   pending      rule → the reading since which its condition holds, not for `forMs` yet
 *   statistics   rule → what is usual (anomaly)
 *   late         metric → what came late of it and is not reconciled; kept until the backlog is over
 *   runs         rule → what is known of the time that a backlog may reach, as runs of readings with one verdict
 *   recent       rule → its incidents of that time that people know of
 *   judged       rule → up to which message of each log everything is judged: what comes again of that changes nothing
 *   gaps         rule → times in which nothing was heard, not certain until the backlog is over (absence)
 */

import type { IncidentKind, Severity } from './incident.ts';
import type { ReadingOrder } from './order.ts';
import type { Verdict } from './rule.ts';
import type { Statistics } from './statistics.ts';

/** An incident that is open on a twin. */
export interface OpenAlert {
  readonly incident: string;
  readonly kind: IncidentKind;
  readonly metric: string | null;
  readonly severity: Severity;
  readonly summary: string;
  readonly threshold: number | null;
  readonly openedAt: number;
  /** The value that opened it. */
  readonly value: number | null;
}

/** One reading of a number, with the time it arrived by the gateway's clock. */
export interface Since extends ReadingOrder {
  readonly value: number;
  readonly receivedAt: number;
}

/** The last time a device, or a metric of it, was heard. */
export interface LastHeard {
  readonly receivedAt: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
}

export interface LateMetric {
  /** The newest of it. */
  readonly last: Since;
  /** When the last of it arrived. */
  readonly arrived: number;
  /** Whose backlog it is. */
  readonly gateway: string;
  /** Whether it came in order, with what is on time to follow it. */
  readonly leadsUp: boolean;
}

/** Readings of one verdict, as far as is known with none of another between them. */
export interface Run {
  readonly verdict: Verdict;
  readonly first: Since;
  readonly last: Since;
}

/** An incident that was opened, or cleared, on time; by the devices' times. */
export interface RecentIncident {
  readonly from: number;
  /** Null while it is open. */
  readonly to: number | null;
  /** When its last news arrived. */
  readonly receivedAt: number;
}

export interface JudgedLog {
  readonly log: string;
  /** The last one of which something was past and is forgotten. */
  readonly sequence: number;
}

export interface Gap {
  readonly from: LastHeard;
  /** When it was heard again. */
  readonly to: number;
}

export interface RuleMemory {
  readonly pending: ReadonlyMap<string, Since>;
  readonly statistics: ReadonlyMap<string, Statistics>;
  readonly late: ReadonlyMap<string, LateMetric>;
  readonly runs: ReadonlyMap<string, readonly Run[]>;
  readonly recent: ReadonlyMap<string, readonly RecentIncident[]>;
  readonly judged: ReadonlyMap<string, readonly JudgedLog[]>;
  readonly gaps: ReadonlyMap<string, readonly Gap[]>;
}

/** Of one rule, while a backlog is to come; beyond it the earliest runs become one, and what they say is told (F). */
export const RUNS_MAX = 32;
/** Of one rule; the first ones are those a backlog can reach (F). */
export const RECENT_MAX = 16;
/** Logs of one rule, the newest ones: a gateway begins one with each start (F). */
export const JUDGED_LOGS_MAX = 4;
/** Gaps of one rule that wait for a backlog to be over; further ones are not judged (F). */
export const GAPS_MAX = 8;

const EMPTY: ReadonlyMap<string, never> = new Map<string, never>();

export const NO_ALERTS: ReadonlyMap<string, OpenAlert> = EMPTY;

export const NO_MEMORY: RuleMemory = {
  pending: EMPTY,
  statistics: EMPTY,
  late: EMPTY,
  runs: EMPTY,
  recent: EMPTY,
  judged: EMPTY,
  gaps: EMPTY,
};

/** Shares the empty maps; @returns the shared `NO_MEMORY` when there is nothing in it */
export function compactMemory(memory: RuleMemory): RuleMemory {
  const { pending, statistics, late, runs, recent, judged, gaps } = memory;
  if (Object.values(memory).every(part => part.size === 0)) return NO_MEMORY;
  const shared = <T>(map: ReadonlyMap<string, T>) => (map.size === 0 ? EMPTY : map);
  return {
    pending: shared(pending),
    statistics: shared(statistics),
    late: shared(late),
    runs: shared(runs),
    recent: shared(recent),
    judged: shared(judged),
    gaps: shared(gaps),
  };
}
