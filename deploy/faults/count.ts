/**
 * What became of every message: the devices' journals and the wire between broker and gateway on one side, history on the
 * other, compared both ways. Pure but for the questions to the database.
 */
import type pg from 'pg';
import type { BrokerTap } from './broker-tap.ts';
import { messageKey } from './broker-tap.ts';
import type { DeviceJournal, Puback } from './devices.ts';
import { compareCounters, type StoredCounter, storedCounters } from './stored-counters.ts';

export interface MessageCount {
  readonly published: number;
  /** The device saw the broker's PUBACK. */
  readonly acknowledged: number;
  /** Different messages in history. */
  readonly stored: number;
  /** In history, and came by the backfill lane. */
  readonly late: number;
  /** Of which history has a summary. */
  readonly thinned: number;
  /** Acknowledged, and history does not have them though the gateway had taken them, or the broker still has to hand them over. */
  readonly lost: number;
  /** Acknowledged by the broker to the device, never by the gateway to the broker, and gone with a broker that was killed. */
  readonly lost_at_broker: number;
  /** Rows beyond the first of a message, but for `repeated_unmarked`. */
  readonly duplicates: number;
  /**
   * The same, of devices without timestamps, where the broker handed the message over again as a new one: the device had
   * sent it twice, or the broker had forgotten that it had. No receiver can tell that from two equal readings.
   */
  readonly repeated_unmarked: number;
  /** In history and never published, or with another value than was published. */
  readonly phantoms: number;
}

export interface Verdict {
  readonly count: MessageCount;
  /** One line each, about the first few messages that are lost, double or made up. */
  readonly details: readonly string[];
}

/**
 * A killed Mosquitto comes back as it was at its last save, up to 5 s earlier; the rest is for how long a save takes and for
 * PUBACKs that were still on their way.
 */
const BROKER_FORGETS_MS = { before: 8000, after: 2000 };
const DETAILS_MAX = 20;

export interface CountInput {
  readonly journals: readonly DeviceJournal[];
  readonly tap: Pick<BrokerTap, 'acknowledged' | 'handedOver'>;
  readonly brokerKilledAt: readonly number[];
  readonly stored: readonly StoredCounter[];
  readonly ledger: { readonly late: number; readonly thinned: number };
  readonly wrongValues: readonly string[];
}

export function count(input: CountInput): Verdict {
  const { journals, tap, brokerKilledAt } = input;
  const byDevice = new Map(journals.map(journal => [journal.device, journal]));
  const compared = compareCounters(
    new Map(
      journals.map(({ device, published, acknowledged }) => [
        device,
        { published, acknowledged: acknowledged.keys() },
      ]),
    ),
    input.stored,
  );

  const details: string[] = [];
  let lostAtBroker = 0;
  let missing = 0;
  for (const { device, n } of compared.missing) {
    const puback = byDevice.get(device)!.acknowledged.get(n)!;
    const taken = tap.acknowledged.has(messageKey(device, n));
    if (!taken && isForgotten(puback, brokerKilledAt)) lostAtBroker++;
    else {
      missing++;
      const since = new Date(puback.at).toISOString().slice(11, 23);
      details.push(
        `missing: ${device} ${n}, acknowledged to the device at ${since}, ${taken ? 'by the gateway too' : 'not by the gateway'}`,
      );
    }
  }

  let duplicates = 0;
  let unmarked = 0;
  for (const { device, n, times } of compared.repeated) {
    const handed = tap.handedOver(messageKey(device, n));
    const forgiven = byDevice.get(device)!.ownTimestamps ? 0 : Math.min(times - 1, Math.max(0, handed - 1));
    unmarked += forgiven;
    duplicates += times - 1 - forgiven;
    if (times - 1 > forgiven)
      details.push(`double: ${device} ${n}, ${times} rows, handed over ${handed} times`);
  }
  details.push(...input.wrongValues);
  return {
    count: {
      published: journals.reduce((sum, { published }) => sum + published, 0),
      acknowledged: compared.acknowledged,
      stored: compared.stored,
      late: input.ledger.late,
      thinned: input.ledger.thinned,
      // A summary stands for messages that cannot be told apart any more.
      lost: Math.max(0, missing - input.ledger.thinned),
      lost_at_broker: lostAtBroker,
      duplicates,
      repeated_unmarked: unmarked,
      phantoms: compared.phantoms + input.wrongValues.length,
    },
    details: details.slice(0, DETAILS_MAX),
  };
}

const isForgotten = (puback: Puback, brokerKilledAt: readonly number[]): boolean =>
  puback.nobodyThere ||
  brokerKilledAt.some(
    at => puback.at >= at - BROKER_FORGETS_MS.before && puback.at <= at + BROKER_FORGETS_MS.after,
  );

/** Everything that {@link count} needs of history. */
export async function readHistory(
  postgres: pg.Pool,
  site: string,
  journals: readonly DeviceJournal[],
  valueFor: (index: number, n: number) => number,
): Promise<Pick<CountInput, 'stored' | 'ledger' | 'wrongValues'>> {
  const devices = journals.map(({ device }) => device);
  const ledger = await postgres.query<{ late: number; thinned: number }>(
    `select coalesce(sum(late), 0)::int as late, coalesce(sum(thinned), 0)::int as thinned
       from holdfast.gateway_log where site = $1`,
    [site],
  );
  return {
    stored: await storedCounters(postgres, { site, devices, metric: 'n' }),
    ledger: ledger.rows[0]!,
    wrongValues: await wrongValues(postgres, site, devices, valueFor),
  };
}

/** Every value in history is the one that its device published under that counter. */
async function wrongValues(
  postgres: pg.Pool,
  site: string,
  devices: readonly string[],
  valueFor: (index: number, n: number) => number,
): Promise<string[]> {
  const { rows } = await postgres.query<{ device: string; n: number | null; v: number | null }>(
    `select device, max(value) filter (where metric = 'n') as n, max(value) filter (where metric = 'v') as v
       from holdfast.reading where site = $1 and device = any ($2) and metric in ('n', 'v')
      group by device, log, sequence, element`,
    [site, devices],
  );
  return rows
    .filter(({ device, n, v }) => n === null || v !== valueFor(devices.indexOf(device), n))
    .map(({ device, n, v }) => `wrong: ${device} ${n} has the value ${v}`);
}

/** Whether all that the gateway acknowledged to the broker is in history. */
export async function allTakenIsStored(
  postgres: pg.Pool,
  site: string,
  journals: readonly DeviceJournal[],
  tap: Pick<BrokerTap, 'acknowledged'>,
): Promise<boolean> {
  const devices = journals.map(({ device }) => device);
  const stored = await storedCounters(postgres, { site, devices, metric: 'n' });
  const found = new Set(stored.map(({ device, n }) => messageKey(device, n)));
  for (const key of tap.acknowledged) if (!found.has(key)) return false;
  return true;
}
