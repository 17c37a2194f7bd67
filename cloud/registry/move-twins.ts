/**
 * Twins under a name that is an alias now, pure: all that they know belongs to the device the alias stands for. Doing it
 * again changes nothing, so nobody needs to remember whether it was done.
 */
import { receive, type TwinState } from '../actors/twin.ts';

export interface MovedTwins {
  /** Twins as they are afterwards, by their device's name. */
  readonly twins: readonly TwinState[];
  /** Names that have no twin any more. */
  readonly gone: readonly string[];
}

export const NOTHING_MOVED: MovedTwins = { twins: [], gone: [] };

/** @param aliases alias → device, of the twins' site */
export function moveTwins(
  twins: ReadonlyMap<string, TwinState>,
  aliases: ReadonlyMap<string, string>,
): MovedTwins {
  const moved = new Map<string, TwinState>();
  const gone: string[] = [];
  for (const [alias, device] of aliases) {
    const from = twins.get(alias);
    if (from === undefined) continue;
    gone.push(alias);
    moved.set(device, joined(moved.get(device) ?? twins.get(device), from, device));
  }
  return gone.length === 0 ? NOTHING_MOVED : { twins: [...moved.values()], gone };
}

function joined(known: TwinState | undefined, from: TwinState, device: string): TwinState {
  const other = { ...from, device };
  const state = known ? receive(known, { type: 'merge', other }).state : other;
  // Above both: whoever has seen either of them takes this one (D).
  return { ...state, version: Math.max(known?.version ?? 0, from.version) + 1 };
}
