/**
 * The registry applied to what comes in, before twins and history see it, pure: names by alias, numbers by unit, and
 * devices that the site's policy refuses are set aside with all that a replay needs.
 *
 * The usual batch, which nothing applies to, costs one look-up per device and comes back as it is.
 * Invariants: A (a refused message that is too long to be kept whole is admitted: a policy is no reason to lose
 * readings), B (sequences and elements stay what they are), H (what is set aside has its reason).
 */
import type { MetricColumn, ReadingsBatch, SetAside, Summaries, ThinnedBatch } from '../../protocol/batch.ts';
import { encodeKeptMessage } from './kept-message.ts';
import type { NameEntry, SiteRegistry } from './model.ts';
import { partRows, selectRows } from './select-rows.ts';
import type { Conversion } from './units.ts';

/** @param site null when there is no registry of the batch's site */
export function applyRegistry(batch: ReadingsBatch, site: SiteRegistry | null): ReadingsBatch {
  if (site === null) return batch;
  const found = lookUp(batch.devices, site);
  if (found === null) return batch;
  const admitted = found.refused.size > 0 ? withoutRefused(batch, found.refused) : batch;
  // Refusing leaves other devices in the dictionary.
  const { names, converting } = admitted === batch ? found : (lookUp(admitted.devices, site) ?? NOTHING);
  const metrics = converting.size > 0 ? convertedColumns(admitted, converting) : admitted.metrics;
  return { ...admitted, devices: names ?? admitted.devices, metrics };
}

/** The same of a thinned run. Its summaries are of readings that are no more: no policy sets them aside. */
export function applyRegistryToThinned(batch: ThinnedBatch, site: SiteRegistry | null): ThinnedBatch {
  if (site === null) return batch;
  const kept = applyRegistry(batch.kept, site);
  const summaries = appliedSummaries(batch.summaries, site);
  return kept === batch.kept && summaries === batch.summaries ? batch : { ...batch, kept, summaries };
}

interface Found {
  /** The devices' names, or null when none is an alias. */
  readonly names: readonly string[] | null;
  /** Indexes of devices that the policy refuses. */
  readonly refused: ReadonlySet<number>;
  /** By index of the device, where anything is converted. */
  readonly converting: ReadonlyMap<number, ReadonlyMap<string, Conversion>>;
}

const NOTHING: Found = { names: null, refused: new Set(), converting: new Map() };

/** @returns null when nothing applies */
function lookUp(devices: readonly string[], { names: known, unknownDevices }: SiteRegistry): Found | null {
  let names: string[] | null = null;
  let refused: Set<number> | null = null;
  let converting: Map<number, ReadonlyMap<string, Conversion>> | null = null;
  for (let index = 0; index < devices.length; index++) {
    const name = devices[index]!;
    const entry: NameEntry | undefined = known.get(name);
    if (entry === undefined) {
      if (unknownDevices === 'quarantine') {
        refused ??= new Set();
        refused.add(index);
      }
      continue;
    }
    if (entry.device !== name) {
      names ??= [...devices];
      names[index] = entry.device;
    }
    if (entry.conversions !== null) {
      converting ??= new Map();
      converting.set(index, entry.conversions);
    }
  }
  if (names === null && refused === null && converting === null) return null;
  return {
    names,
    refused: refused ?? NOTHING.refused,
    converting: converting ?? NOTHING.converting,
  };
}

const UNKNOWN_REFUSED = 'its site takes no unknown devices';

function withoutRefused(batch: ReadingsBatch, refused: ReadonlySet<number>): ReadingsBatch {
  const { rows } = batch;
  const isRefused = (row: number) => refused.has(rows.device[row]!);
  const setAside: SetAside[] = [];
  const gone = new Set<number>();
  const parts = partRows(batch, row => (isRefused(row) ? rows.sequenceOffset[row]! : null));
  for (const [sequenceOffset, part] of parts) {
    const payload = encodeKeptMessage(batch, sequenceOffset, part, false);
    if (payload === null) continue;
    gone.add(sequenceOffset);
    const names = part.devices.length > 1 ? `${part.devices[0]} and others` : part.devices[0];
    setAside.push({
      sequenceOffset,
      reason: `${names}: not in the registry, and ${UNKNOWN_REFUSED}`,
      topic: '',
      receivedAt: part.rows.receivedAt[0]!,
      payloadBytes: payload.length,
      payload,
    });
  }
  if (gone.size === 0) return batch;
  return {
    ...batch,
    ...selectRows(batch, row => !(isRefused(row) && gone.has(rows.sequenceOffset[row]!))),
    setAside: [...batch.setAside, ...setAside].sort((a, b) => a.sequenceOffset - b.sequenceOffset),
  };
}

/** A column may hold values of many devices: each is converted as its own device's type says. */
function convertedColumns(
  batch: ReadingsBatch,
  converting: ReadonlyMap<number, ReadonlyMap<string, Conversion>>,
): readonly MetricColumn[] {
  const metrics: MetricColumn[] = [...batch.metrics];
  const copies = new Map<number, Float64Array>();
  const cursors = new Uint32Array(batch.metrics.length);
  const { rows, shapes } = batch;
  for (let row = 0; row < rows.length; row++) {
    const conversions = converting.get(rows.device[row]!);
    for (const column of shapes[rows.shape[row]!]!) {
      const at = cursors[column]!++;
      if (conversions === undefined) continue;
      const { name, type, values } = batch.metrics[column]!;
      const convert = type === 'number' ? conversions.get(name) : undefined;
      if (convert === undefined || type !== 'number') continue;
      let copy = copies.get(column);
      if (copy === undefined) {
        copy = values.slice();
        copies.set(column, copy);
        metrics[column] = { name, type, values: copy };
      }
      copy[at] = convert(values[at]!);
    }
  }
  return metrics;
}

function appliedSummaries(summaries: Summaries, site: SiteRegistry): Summaries {
  const found = lookUp(summaries.devices, site);
  if (found === null) return summaries;
  const devices = found.names ?? summaries.devices;
  if (found.converting.size === 0) return { ...summaries, devices };
  const [minimum, maximum, mean] = [
    summaries.minimum.slice(),
    summaries.maximum.slice(),
    summaries.mean.slice(),
  ];
  for (let i = 0; i < summaries.length; i++) {
    const convert = found.converting.get(summaries.device[i]!)?.get(summaries.metrics[summaries.metric[i]!]!);
    if (convert === undefined) continue;
    const ends = [convert(minimum[i]!), convert(maximum[i]!)];
    minimum[i] = Math.min(...ends);
    maximum[i] = Math.max(...ends);
    mean[i] = convert(mean[i]!);
  }
  return { ...summaries, devices, minimum, maximum, mean };
}
