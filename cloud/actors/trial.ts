/**
 * What rules would have said of one device, read from history in the order of the devices' times: the very fold that judges
 * what comes in, with time passing from one reading to the next. Pure.
 */
import type { IncidentTransition } from './incident.ts';
import type { TwinRules } from './rule-index.ts';
import { newTwin, type Reading, receive, type TwinMessage, type TwinState } from './twin.ts';

export interface Trial {
  /** @param reading later than the one before; of its times, `at` counts */
  read(
    reading: Pick<Reading, 'at' | 'log' | 'sequence' | 'element' | 'metrics' | 'values'>,
  ): IncidentTransition[];
  /** Nothing more is known until then. */
  end(at: number): IncidentTransition[];
}

const GATEWAY = 'history';

export function newTrial(site: string, device: string, rules: TwinRules): Trial {
  let twin: TwinState = newTwin(site, device);
  const fold = (message: TwinMessage): IncidentTransition[] => {
    const { state, effects } = receive(twin, message);
    twin = state;
    return effects.map(({ transition }) => transition);
  };
  const passed = (completeUntil: number) =>
    fold({
      type: 'clock',
      gateway: GATEWAY,
      clock: { completeUntil, hearingSince: 0, standsIn: false },
      rules,
    });
  return {
    read: reading => [
      ...passed(reading.at),
      ...fold({
        type: 'reading',
        rules,
        reading: {
          ...reading,
          receivedAt: reading.at,
          gateway: GATEWAY,
          lane: 'live',
          stretch: 0,
          isNewStretch: false,
          isLate: false,
          kind: 'telemetry',
        },
      }),
    ],
    end: passed,
  };
}
