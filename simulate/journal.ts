/**
 * The checker's own record of what happened, written down where it happens, apart from anything the cluster remembers.
 */
export interface Journal {
  /** `device n` of every message that was published. */
  readonly published: Map<string, number>;
  /** `device n` of what was acknowledged to the broker: from then on it must reach history (A). */
  readonly acknowledged: Set<string>;
  /** By message: boxes that the broker has handed it to. What two boxes have taken, nobody can tell from two readings. */
  readonly handedTo: Map<string, Set<object>>;
  /** One line each. */
  readonly staleEffects: string[];
  readonly regressions: string[];
  /** Dashboards: newest time that was shown, by page and twin. */
  readonly shown: Map<string, number>;
  /** What people were told of incidents: whether it was over, by id. */
  readonly pages: Map<string, boolean>;
  faults: number;
}

export const newJournal = (): Journal => ({
  published: new Map(),
  acknowledged: new Set(),
  handedTo: new Map(),
  staleEffects: [],
  regressions: [],
  shown: new Map(),
  pages: new Map(),
  faults: 0,
});

export const messageKey = (device: string, n: number): string => `${device} ${n}`;

/** What the device `device` measures as its message `n`: runs of several readings above 50 now and then. */
export function measuredValue(device: string, n: number): number {
  const phase = device.charCodeAt(device.length - 1) * 7;
  const step = (n + phase) % 17;
  return step >= 6 && step < 9 ? 55 + (step % 3) : 20 + ((n * 13 + phase) % 20);
}
