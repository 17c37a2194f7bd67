/**
 * What is compacted and thinned, and when; the work itself is done off the main thread (compaction-job.ts).
 *
 *   frames ──sealed, waits, older than the newest messages──▶ blocks ──nearly full, never sent──▶ thinned, ever coarser
 *
 * Compacted is what history has not settled some time after it was sealed; at once, when what waits takes half of the
 * buffer. Thinned is only what no publish may have carried away and history has no part of (B), while what waits takes over
 * 90 % of the buffer and nothing can be compacted, down to 85 %. A file that cannot be made stays as it is and is tried
 * again ever more rarely (H).
 */
import { dirname } from 'node:path';
import { thinningIntervalsMs } from '../../protocol/batch.ts';
import type { BlocksTarget } from './blocks-writer.ts';
import type { BufferLogger, CompactionOptions } from './buffer-api.ts';
import type { Job, JobOutcome } from './compaction-job.ts';
import { codeOf, type FileOperations } from './files.ts';
import { type LogState, noteLost, noteSettledSegments, olderThanNewest } from './log-state.ts';
import { type BlockSegment, blocksPath, newBlockSegment, type Segment } from './segment.ts';
import { isMarked } from './sent-marks.ts';
import type { Space } from './space.ts';
import { planThinning } from './thinning-plan.ts';

const WAIT_MS = 60_000;
const PRESSED_SHARE = 0.5;
const THIN_FROM_SHARE = 0.9;
const THIN_TO_SHARE = 0.85;
/** Thinning that leaves more than this is not worth the detail it costs. */
const THINNED_SHARE_MAX = 0.7;
const RETRY_FIRST_MS = 10_000;
const RETRY_MAX_MS = 3_600_000;
/** After a failure nothing is tried for so long: the disk may refuse all. */
const PAUSE_MS = 5_000;
const NEVER = Number.POSITIVE_INFINITY;

export interface CompactionState {
  readonly segmentsCompacted: number;
  readonly failures: number;
  /** Segments that are to become blocks and have not. */
  readonly segmentsWaiting: number;
}

export interface Compaction {
  readonly state: CompactionState;
  /** Something was sealed or settled, or time has passed: looks for work. */
  look(): void;
  /** When the work of this moment is done, whatever is begun after it. */
  workDone(): Promise<void>;
  close(): Promise<void>;
}

interface Attempts {
  /** Monotonic, milliseconds. */
  notBeforeMs: number;
  failures: number;
  /** Of blocks: thinning to this level is known to bring nothing. */
  level: number;
}

interface Candidate {
  readonly log: LogState;
  readonly segment: Segment;
}

export function createCompaction(
  o: CompactionOptions & {
    readonly files: FileOperations;
    /** Oldest first, the current one last. */
    readonly logs: readonly LogState[];
    readonly space: Space;
    /** What intake may fill. */
    readonly bytesMax: number;
    /** The most that a file in the making may take beside what is there. */
    readonly reserveBytes: number;
    /** Bytes that are not in segments yet. */
    readonly pendingBytes: () => number;
    readonly nowMs: () => number;
    readonly logger: BufferLogger;
    /** There may be room now. */
    readonly spaceGained: () => void;
  },
): Compaction {
  const { logs, space, logger } = o;
  const waitMs = o.waitMs ?? WAIT_MS;
  const state = {
    segmentsCompacted: 0,
    failures: 0,
    get segmentsWaiting() {
      return [...compactable()].filter(({ segment }) => attemptsOf(segment).failures < NEVER).length;
    },
  };
  const attempts = new WeakMap<Segment, Attempts>();
  let working: Promise<void> | null = null;
  let notBeforeMs = 0;
  let thinning = false;
  let closed = false;

  function attemptsOf(segment: Segment, now = performance.now()): Attempts {
    let known = attempts.get(segment);
    if (!known) {
      const waits = segment.form === 'frames' ? now + waitMs : 0;
      known = { notBeforeMs: waits, failures: 0, level: segment.form === 'blocks' ? segment.level : 0 };
      attempts.set(segment, known);
    }
    return known;
  }

  /** What history has settled as a whole can be given back at any time. */
  function waitingShare(): number {
    let bytes = space.diskBytes + o.pendingBytes();
    for (const log of logs)
      for (const segment of log.segments) if (segment.settledAtMs !== null) bytes -= segment.bytes;
    return bytes / o.bytesMax;
  }

  /** What is to become blocks sooner or later, the newest first. */
  function* compactable(): Generator<Candidate> {
    for (const old of olderThanNewest(logs, { messages: o.keepMessages, bytesMax: o.bytesMax / 4 })) {
      const { form, sealed, firstSequence, nextSequence, settledAtMs } = old.segment;
      const isOfFrames = form === 'frames' && sealed && nextSequence > firstSequence;
      if (isOfFrames && settledAtMs === null) yield old;
    }
  }

  /** The newest first: what is drained meanwhile is the oldest. */
  function nextToCompact(pressed: boolean): Candidate | null {
    const now = performance.now();
    for (const candidate of compactable()) {
      const { notBeforeMs: notBefore, failures } = attemptsOf(candidate.segment, now);
      if (candidate.segment.work === null && (now >= notBefore || (pressed && failures === 0)))
        return candidate;
    }
    return null;
  }

  function nextToThin(): { log: LogState; segments: BlockSegment[]; level: number } | null {
    const now = performance.now();
    const candidates = logs.flatMap(log =>
      log.segments.flatMap(segment => {
        if (segment.form !== 'blocks' || segment.work !== null) return [];
        const { firstSequence, nextSequence, bytes } = segment;
        const { level, notBeforeMs: notBefore } = attemptsOf(segment);
        if (level >= thinningIntervalsMs.length || now < notBefore) return [];
        if (isMarked(log, segment) || log.settled.intersects(firstSequence, nextSequence)) return [];
        return [{ log, segment, firstSequence, nextSequence, bytes, level }];
      }),
    );
    const planned = planThinning(candidates, o.reserveBytes);
    const [first] = planned;
    if (!first) return null;
    return { log: first.log, segments: planned.map(({ segment }) => segment), level: first.level + 1 };
  }

  function look(): void {
    if (closed) return;
    // Even while it works: a segment that was settled before it was sealed waits for nothing.
    for (const log of logs) noteSettledSegments(log, o.nowMs());
    if (working || performance.now() < notBeforeMs) return;
    const share = waitingShare();
    const next = nextToCompact(share > PRESSED_SHARE);
    if (next) {
      start(compact(next));
      return;
    }
    thinning = o.nearFull === 'thin' && share > (thinning ? THIN_TO_SHARE : THIN_FROM_SHARE);
    const due = thinning ? nextToThin() : null;
    if (due) start(thin(due.log, due.segments, due.level));
  }

  function start(work: Promise<void>): void {
    working = work
      .catch(error => logger.error({ err: error }, 'compaction went wrong'))
      .then(() => {
        working = null;
        if (closed) return;
        o.spaceGained();
        look();
      });
  }

  function targetOf(
    log: LogState,
    segments: readonly Segment[],
    level: number,
    bytesMax: number,
  ): BlocksTarget {
    return {
      path: blocksPath(segments[0]!.path, level),
      logId: log.logId,
      generation: log.generation,
      bootId: log.bootId ?? '',
      firstSequence: segments[0]!.firstSequence,
      nextSequence: segments.at(-1)!.nextSequence,
      bytesMax: Math.floor(Math.min(bytesMax, o.reserveBytes)),
    };
  }

  /**
   * A thread that died may have finished its file. Whoever starts next would take it, so it is taken now: else what it was
   * made of might be sent, and it as well. Its name may not be on the disk yet: what it was made of goes after that (A).
   */
  async function run(job: Job): Promise<JobOutcome> {
    const outcome = await o.compactor.run(job);
    if (outcome.outcome !== 'failed') return outcome;
    const { path } = job.target;
    for (;;) {
      try {
        const bytes = await o.files.size(path);
        await o.files.syncFolder(dirname(path));
        return { outcome: 'done', bytes, lost: [] };
      } catch (error) {
        if (codeOf(error) === 'ENOENT' || closed) return outcome;
        await new Promise(resolve => setTimeout(resolve, PAUSE_MS).unref());
      }
    }
  }

  async function compact({ log, segment }: Candidate): Promise<void> {
    segment.work = 'compacting';
    const { path, bytes } = segment;
    const target = targetOf(log, [segment], 0, bytes);
    const outcome = await run({ work: 'compact', path, bytes, target });
    segment.work = null;
    if (outcome.outcome !== 'done') {
      setBack(log, [segment], outcome);
      return;
    }
    noteDamage(log, path, outcome.lost);
    space.replace(log, [segment], blocksOf(target, 0, outcome.bytes));
    state.segmentsCompacted++;
    const { firstSequence: from, nextSequence: to } = segment;
    const details = { logId: log.logId, from, to, bytes, bytesNow: outcome.bytes };
    logger.info(details, 'segment compacted into blocks');
  }

  async function thin(log: LogState, segments: readonly BlockSegment[], level: number): Promise<void> {
    for (const segment of segments) segment.work = 'thinning';
    const bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
    const target = targetOf(log, segments, level, bytes * THINNED_SHARE_MAX);
    const intervalMs = thinningIntervalsMs[level - 1]!;
    const sources = segments.map(segment => ({
      path: segment.path,
      bytes: segment.bytes,
      from: segment.firstSequence,
      to: segment.nextSequence,
    }));
    const outcome = await run({ work: 'thin', sources, intervalMs, target });
    for (const segment of segments) segment.work = null;
    if (outcome.outcome === 'too-large') {
      for (const segment of segments) attemptsOf(segment).level = level;
      return;
    }
    if (outcome.outcome === 'failed') {
      setBack(log, segments, outcome);
      // A run that is too much for the thread may not be at a coarser interval.
      for (const known of segments.map(segment => attemptsOf(segment)))
        if (known.failures > 1) known.level = level;
      return;
    }
    noteDamage(log, target.path, outcome.lost);
    space.replace(log, segments, blocksOf(target, level, outcome.bytes));
    const { firstSequence: from, nextSequence: to } = target;
    const details = { logId: log.logId, from, to, messages: to - from, intervalMs, bytes };
    logger.warn(
      { ...details, bytesNow: outcome.bytes },
      'the buffer is nearly full: the oldest telemetry was thinned',
    );
  }

  const blocksOf = (target: BlocksTarget, level: number, bytes: number): BlockSegment => {
    const { path, firstSequence, nextSequence } = target;
    return newBlockSegment({ path, firstSequence, nextSequence, bytes, level });
  };

  function setBack(
    log: LogState,
    segments: readonly Segment[],
    outcome: Exclude<JobOutcome, { outcome: 'done' }>,
  ): void {
    const details = { logId: log.logId, segment: segments[0]!.path };
    if (outcome.outcome === 'too-large') {
      for (const segment of segments)
        Object.assign(attemptsOf(segment), { notBeforeMs: NEVER, failures: NEVER });
      logger.info(details, 'segment stays as it is: blocks of it would hardly be smaller');
      return;
    }
    if (closed) return;
    const now = performance.now();
    for (const segment of segments) {
      const known = attemptsOf(segment);
      known.notBeforeMs = now + Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** known.failures++);
    }
    state.failures++;
    notBeforeMs = now + PAUSE_MS;
    const { reason, code } = outcome;
    logger.warn({ ...details, reason, code }, 'a segment could not be compacted: it stays as it is for now');
  }

  function noteDamage(log: LogState, path: string, lost: readonly { from: number; to: number }[]): void {
    for (const { from, to } of lost) {
      const text = noteLost(log, from, to);
      if (text) logger.error({ logId: log.logId, segment: path, from, to }, text);
    }
  }

  return {
    state,
    look,
    async workDone() {
      await working;
    },
    async close() {
      closed = true;
      await o.compactor.close();
      await working;
    },
  };
}
