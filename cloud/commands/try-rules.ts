/** Rules over history, before they are armed: one device after the other, so that memory holds no more than a page. */
import type { Pool } from 'pg';
import type { IncidentTransition } from '../actors/incident.ts';
import type { Rule } from '../actors/rule.ts';
import { indexRules } from '../actors/rule-index.ts';
import { newTrial } from '../actors/trial.ts';
import { readDevices, readMessages } from '../history/read-devices.ts';

export interface TrialOptions {
  readonly rules: readonly Rule[];
  /** Milliseconds since 1970. */
  readonly from: number;
  readonly to: number;
  readonly site: string | null;
  readonly device: string | null;
}

export interface TrialSummary {
  readonly devices: number;
  readonly messages: number;
  readonly incidents: number;
  /** Still open at the end of the time. */
  readonly open: number;
}

/** @param onIncident told once per incident, when it has cleared or the device's history ends */
export async function tryRules(
  pool: Pool,
  { rules, from, to, site, device: only }: TrialOptions,
  onIncident: (incident: IncidentTransition) => void,
): Promise<TrialSummary> {
  const index = indexRules(rules, 1);
  const summary = { devices: 0, messages: 0, incidents: 0, open: 0 };
  for await (const { id, site: at, device, traits } of readDevices(pool, { site, device: only })) {
    const ofDevice = index.of(at, device, traits);
    if (ofDevice.isEmpty) continue;
    summary.devices++;
    const trial = newTrial(at, device, ofDevice);
    const open = new Map<string, IncidentTransition>();
    const take = (transitions: readonly IncidentTransition[]) => {
      for (const transition of transitions) {
        if (transition.clearedAt === null) open.set(transition.id, transition);
        else {
          open.delete(transition.id);
          summary.incidents++;
          onIncident(transition);
        }
      }
    };
    for await (const reading of readMessages(pool, id, [...ofDevice.byMetric.keys()], from, to)) {
      summary.messages++;
      // A message without the metrics is heard all the same.
      const isBare = reading.metrics.length === 0;
      take(trial.read(isBare ? { ...reading, metrics: [HEARD], values: [''] } : reading));
    }
    take(trial.end(to));
    for (const incident of open.values()) onIncident(incident);
    summary.incidents += open.size;
    summary.open += open.size;
  }
  return summary;
}

/** No device has such a metric. */
const HEARD = '';
