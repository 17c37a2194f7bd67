/**
 * What the gateway subscribes to, and what the broker's session still has from a configuration before. A persistent
 * session keeps every filter until it is taken off; so the filters are remembered in the data folder.
 */
import type { ISubscriptionMap } from 'mqtt';
import { z } from 'zod';
import type { KeptFile } from './kept-files.ts';

export interface Subscriptions {
  /** As `client.subscribe` takes it. */
  readonly wanted: ISubscriptionMap;
  /** Of these, what the gateway can do without. */
  readonly optional: readonly string[];
  /** Filters of an earlier configuration that the session may still have. */
  stale(): string[];
  /** To be called before anything is subscribed: from now on the session may have it. */
  asking(): void;
  /** The session has what is wanted and nothing else. */
  settled(): void;
}

const Remembered = z.record(z.string(), z.array(z.string()));

/**
 * @param options.clientId whose session it is
 * @param options.shareGroup gateways of it take turns; null for a session that gets everything
 * @param options.alone filters that are never shared, and that the gateway can do without
 */
export function newSubscriptions(options: {
  clientId: string;
  topics: readonly string[];
  alone: readonly string[];
  shareGroup: string | null;
  file: KeptFile;
}): Subscriptions {
  const { clientId, shareGroup, file } = options;
  const filters =
    shareGroup === null ? options.topics : options.topics.map(topic => `$share/${shareGroup}/${topic}`);
  const wanted: ISubscriptionMap = {};
  for (const filter of filters) {
    // Own publishes do not come back (a shared subscription may not ask for that); retained values are not new readings.
    wanted[filter] = { qos: 1, nl: shareGroup === null, rap: false, rh: 1 };
  }
  for (const filter of options.alone) wanted[filter] = { qos: 1, nl: false, rap: false, rh: 2 };
  const names = Object.keys(wanted);
  const stale = () => (remembered(file)[clientId] ?? []).filter(filter => !names.includes(filter));

  function remember(list: readonly string[]): void {
    const before = remembered(file);
    if (JSON.stringify(before[clientId]) === JSON.stringify(list)) return;
    file.write(JSON.stringify({ ...before, [clientId]: list }));
  }

  return {
    wanted,
    optional: options.alone,
    stale,
    asking: () => remember([...names, ...stale()]),
    settled: () => remember(names),
  };
}

function remembered(file: KeptFile): Record<string, string[]> {
  try {
    const parsed = Remembered.safeParse(JSON.parse(file.read() ?? '{}'));
    return parsed.success ? parsed.data : {};
  } catch {
    return {};
  }
}
