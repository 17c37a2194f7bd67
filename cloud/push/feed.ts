/**
 * What a push node knows of one site that somebody watches: the version of each twin last sent on, pure. Decides per
 * change whether it goes on, is old news, or shows a gap that only a fresh snapshot mends (C, D).
 */
import { hasBug } from '../../protocol/planted-bug.ts';

export interface Known {
  readonly epoch: number;
  readonly version: number;
}

export type ChangeVerdict = 'forward' | 'old' | 'gap';

export function judgeChange(
  known: Known | undefined,
  change: Known & { readonly since: number },
): ChangeVerdict {
  if (!known) return change.since === 0 ? 'forward' : 'gap';
  if (change.epoch < known.epoch) return hasBug('push-without-epoch') ? 'forward' : 'old';
  // The old owner's last versions may not be what the new one went on from.
  if (change.epoch > known.epoch) return 'gap';
  if (change.version <= known.version) return 'old';
  return change.since === known.version ? 'forward' : 'gap';
}

/** Whether a snapshot of a twin is at least as new as what is known. */
export function isNews(known: Known | undefined, snapshot: Known): boolean {
  if (!known || snapshot.epoch > known.epoch) return true;
  return snapshot.epoch === known.epoch && snapshot.version >= known.version;
}
