/**
 * The incidents that there must be, from the devices' own counters alone: values are a saw's teeth, and each tooth that history
 * has any part of above the threshold is one cause. Pure.
 */
import type { DeviceJournal } from '../faults/devices.ts';

export const CHAOS_RULE = { id: 'chaos-high', metric: 'v', threshold: 30, hysteresis: 2 } as const;

const TOOTH = 40;
/** Follows from device and counter; devices are at different places of the tooth. */
export const chaosValue = (index: number, n: number): number => (n + index * 7) % TOOTH;

/** An incident as it is in the table. */
export interface FoundIncident {
  readonly id: string;
  readonly device: string;
  /** The own counter of the message that opened it; null when history has no such message. */
  readonly openedBy: number | null;
  readonly cleared: boolean;
  /** The last own counter before it was cleared. */
  readonly lastOver: number;
  /** From when to when, for people. */
  readonly span: string;
}

/** @param stored own counters in history, in any order @returns one line for each incident that is missing, doubled, made up or left open */
export function wrongIncidents(
  journals: readonly DeviceJournal[],
  stored: ReadonlyMap<string, readonly number[]>,
  found: readonly FoundIncident[],
): string[] {
  const wrong: string[] = [];
  const byDevice = Map.groupBy(found, incident => incident.device);
  for (const [index, { device, ownTimestamps }] of journals.entries()) {
    // Without times of its own, what it said first is not always what history takes for the first.
    if (!ownTimestamps) continue;
    const left = new Set(byDevice.get(device) ?? []);
    for (const tooth of teethOf(index, stored.get(device) ?? [])) {
      const of = [...left].filter(
        ({ openedBy }) => openedBy !== null && openedBy >= tooth.from && openedBy <= tooth.to,
      );
      for (const incident of of) left.delete(incident);
      const where = `${device} from ${tooth.from} to ${tooth.to}`;
      // What people were told stays: an incident that the outage kept open may have more than one tooth in it.
      const isPartOfAnother = (byDevice.get(device) ?? []).some(
        ({ openedBy, lastOver }) => openedBy !== null && openedBy < tooth.from && lastOver >= tooth.from,
      );
      if (of.length === 0 && !isPartOfAnother) wrong.push(`no incident: ${where}`);
      for (const one of of.slice(1)) wrong.push(`one incident more: ${where}, ${one.id} (${one.span})`);
      if (tooth.cleared && of[0] && !of[0].cleared)
        wrong.push(`not cleared: ${where}, ${of[0].id} (${of[0].span})`);
    }
    for (const { id, openedBy, span } of left)
      wrong.push(`no cause: ${id}, opened by ${openedBy ?? 'nothing'} (${span})`);
  }
  return wrong;
}

interface Tooth {
  /** First and last counter above the threshold. */
  readonly from: number;
  to: number;
  cleared: boolean;
}

/** The rule, folded over what history has in the order in which the device said it. */
export function teethOf(index: number, counters: readonly number[]): Tooth[] {
  const teeth: Tooth[] = [];
  let open: Tooth | null = null;
  for (const n of [...new Set(counters)].sort((a, b) => a - b)) {
    const value = chaosValue(index, n);
    if (value > CHAOS_RULE.threshold) {
      if (open) open.to = n;
      else {
        open = { from: n, to: n, cleared: false };
        teeth.push(open);
      }
    } else if (open && value < CHAOS_RULE.threshold - CHAOS_RULE.hysteresis) {
      open.cleared = true;
      open = null;
    }
  }
  return teeth;
}
