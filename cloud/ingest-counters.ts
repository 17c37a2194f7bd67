/** The counters of a node that has counted nothing yet. */
import type { IngestCounters } from './partition.ts';

export const newIngestCounters = (): IngestCounters => ({
  batches: 0,
  messages: 0,
  readings: 0,
  quarantined: 0,
  corrupt: 0,
  refused: 0,
  expired: 0,
  late: 0,
  thinned: 0,
  lost: 0,
  withoutTwin: 0,
  bytes: 0,
  lagMs: 0,
});
